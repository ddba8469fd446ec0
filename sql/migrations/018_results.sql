-- walhook.explain returns a time with its zone, and walhook.bury how many deliveries it ended. Their new versions are installed as code.
-- Locks and cost: locks on the functions alone; nothing of the application is touched.

drop function if exists walhook.explain(text), walhook.explain(anyelement), walhook.bury(bigint);
