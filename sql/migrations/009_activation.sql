-- What attempts say of a webhook holds for the URL that they went to, and until the webhook is enabled again.
-- Locks and cost: one create, and two columns with constant defaults, which change nothing that is stored; nothing of the application is touched.

-- Each new URL of a webhook, and each time that it is enabled again, gives it another activation. Earlier ones have lower numbers.
create sequence walhook.activation;
alter table walhook.webhook add column activation bigint not null default 0;

-- Trouble of an earlier activation counts for nothing, whoever left it behind.
alter table walhook.webhook_trouble add column activation bigint not null default 0;
