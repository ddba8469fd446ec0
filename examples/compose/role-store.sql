-- The daemon's role in the store. This creates the group role, so that it can be granted before attach gives it its rights.
create role walhook_daemon nologin;
create role walhook login password 'change-me' in role walhook_daemon;
