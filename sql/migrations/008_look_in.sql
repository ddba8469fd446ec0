-- Senders look what is pending at many URLs at once.
-- Locks and cost: one create; nothing of the application is touched.

-- A URL and what is asked for there. No array is NULL.
create type walhook.look_in as (
  tests    bigint[],  -- webhooks whose tests may be sent
  enabled  bigint[],  -- those whose deliveries may be
  keeps    boolean[], -- which of these keep the order
  ordered  bigint[],  -- all that keep it
  moving   bigint[],  -- webhooks whose deliveries wait
  held     bigint[],  -- deliveries that are in memory
  after    bigint,    -- the cursor among those that were never tried
  room     integer,   -- how many of these at most
  room_due integer    -- how many of the others
);
