CREATE TABLE entries (
    account_id BLOB NOT NULL,
    device_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    registration_id INTEGER NOT NULL,
    sender_account BLOB NOT NULL,
    sender_device INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    sender_address TEXT NOT NULL,
    class INTEGER NOT NULL,
    ts_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    origin_provider TEXT NOT NULL,
    origin_kind INTEGER NOT NULL,
    inbox INTEGER NOT NULL,
    enc_type INTEGER NOT NULL,
    weight INTEGER NOT NULL,
    ciphertext BLOB NOT NULL,
    PRIMARY KEY (account_id, device_id, seq)
) STRICT;

-- A repeat is one entry. What was kept for an earlier registration of the device is no repeat.
CREATE UNIQUE INDEX entries_repeat
    ON entries (account_id, device_id, sender_account, sender_device, message_id, registration_id);
CREATE INDEX entries_expiry ON entries (expires_ms);

-- What waits for each device, so that bounds cost one look-up; kept by the triggers in the same transaction.
CREATE TABLE usage (
    account_id BLOB NOT NULL,
    device_id INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (account_id, device_id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER entries_in AFTER INSERT ON entries BEGIN
    INSERT INTO usage (account_id, device_id, messages, bytes) VALUES (new.account_id, new.device_id, 1, new.weight)
    ON CONFLICT DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER entries_out AFTER DELETE ON entries BEGIN
    UPDATE usage SET messages = messages - 1, bytes = bytes - old.weight
    WHERE account_id = old.account_id AND device_id = old.device_id;
    DELETE FROM usage WHERE account_id = old.account_id AND device_id = old.device_id AND messages = 0;
END;
