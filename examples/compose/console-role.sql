-- The console's role, and one to sign in with. This creates the group role, so that it can be granted before attach gives
-- it its rights.
create role walhook_admin nologin;
create role walhook_console login password 'walhook' in role walhook_admin;
create role administrator login password 'walhook' in role walhook_admin;
