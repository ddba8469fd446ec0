-- Where the store is elsewhere, the application's database has no group role walhook_daemon to be granted this.
grant execute on function walhook.unpublish(name, regclass) to walhook;
