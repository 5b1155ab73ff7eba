-- Every change of the table "orders" is written to an outbox in the same transaction: the change and
-- its event are both stored, or neither. outbox.py publishes the events. For PostgreSQL 13 or newer:
--
--   psql -f examples/outbox.sql
--
-- A row is locked from its change to the end of the transaction, so the events of one order are in
-- the order of its changes.

CREATE TABLE IF NOT EXISTS orders (
  id bigint PRIMARY KEY,
  status text NOT NULL
);

CREATE TABLE outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  idempotency_key uuid NOT NULL DEFAULT gen_random_uuid(),
  key text NOT NULL,
  data text NOT NULL,
  removed boolean NOT NULL
);

CREATE FUNCTION add_to_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO outbox (key, data, removed) VALUES (OLD.id, row_to_json(OLD), true);
  ELSE
    INSERT INTO outbox (key, data, removed) VALUES (NEW.id, row_to_json(NEW), false);
  END IF;
  -- PostgreSQL delivers this when the transaction is committed.
  NOTIFY outbox;
  RETURN NULL;
END $$;

CREATE TRIGGER add_to_outbox AFTER INSERT OR UPDATE OR DELETE ON orders
  FOR EACH ROW EXECUTE FUNCTION add_to_outbox();
