-- If the store is elsewhere, attach creates no group role walhook_daemon on the application's server, so the daemon's role
-- gets this right itself.
grant execute on function walhook.unpublish(name, regclass) to walhook;
