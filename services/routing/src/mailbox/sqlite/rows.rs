//! Entries as rows.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use causeway_identity::{AccountId, DeviceId, MessageId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::mailbox::codes::{CLASSES, ENC_TYPES, INBOXES, KINDS, code, decode};
use crate::mailbox::sqlite::failed;
use crate::mailbox::{Depth, DeviceUsage, Page, PageRequest, Put, StoreError, Usage};
use crate::message::{Class, Enc, Envelope, Header, MessageKey, Origin, Seq, weight};

/// True when the device has this message already.
pub(super) fn has(db: &Connection, put: &Put, part: &Enc) -> Result<bool, StoreError> {
    let key = &put.header.key;
    let sql = "SELECT 1 FROM entries WHERE account_id = ?1 AND device_id = ?2 AND sender_account = ?3
               AND sender_device = ?4 AND message_id = ?5 AND registration_id = ?6";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    statement
        .exists(params![
            put.account.as_bytes(),
            part.device.get(),
            key.account.as_bytes(),
            key.device.get(),
            key.id.as_bytes(),
            part.registration,
        ])
        .map_err(failed)
}

/// True when any device of the account has it.
pub(super) fn holds(db: &Connection, account: AccountId, key: &MessageKey) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM usage WHERE account_id = ?1 AND EXISTS (SELECT 1 FROM entries
               WHERE entries.account_id = ?1 AND entries.device_id = usage.device_id AND sender_account = ?2
               AND sender_device = ?3 AND message_id = ?4)";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    statement
        .exists(params![account.as_bytes(), key.account.as_bytes(), key.device.get(), key.id.as_bytes()])
        .map_err(failed)
}

pub(super) fn insert(db: &Connection, put: &Put, part: &Enc) -> Result<(), StoreError> {
    let header = &put.header;
    let sql = "INSERT INTO entries (account_id, device_id, seq, registration_id, sender_account, sender_device,
               message_id, sender_address, class, ts_ms, expires_ms, origin_provider, origin_kind, inbox, enc_type,
               weight, ciphertext)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    statement
        .execute(params![
            put.account.as_bytes(),
            part.device.get(),
            integer(header.seq.0),
            part.registration,
            header.key.account.as_bytes(),
            header.key.device.get(),
            header.key.id.as_bytes(),
            header.from.as_str(),
            code(&CLASSES, &header.class),
            integer(header.ts_ms),
            integer(header.expires_ms),
            header.origin.provider.as_str(),
            code(&KINDS, &header.origin.kind),
            code(&INBOXES, &header.origin.inbox),
            code(&ENC_TYPES, &part.kind),
            integer(weight(part) as u64),
            &part.ciphertext[..],
        ])
        .map_err(failed)?;
    Ok(())
}

pub(super) fn usage(db: &Connection, account: AccountId) -> Result<Vec<DeviceUsage>, StoreError> {
    let sql = "SELECT device_id, messages, bytes, (SELECT max(seq) FROM entries
               WHERE entries.account_id = usage.account_id AND entries.device_id = usage.device_id)
               FROM usage WHERE account_id = ?1 ORDER BY device_id";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_map(params![account.as_bytes()], |row| {
            Ok(DeviceUsage {
                device: device(row, 0)?,
                usage: Usage { messages: natural(row, 1)?, bytes: natural(row, 2)? },
                last: Seq(natural(row, 3)?),
            })
        })
        .map_err(failed)?;
    found.collect::<Result<_, _>>().map_err(failed)
}

pub(super) fn page(db: &Connection, request: &PageRequest) -> Result<Page, StoreError> {
    let sql = "SELECT seq, sender_account, sender_device, message_id, sender_address, class, ts_ms, expires_ms,
               origin_provider, origin_kind, inbox, enc_type, ciphertext FROM entries
               WHERE account_id = ?1 AND device_id = ?2 AND seq > ?3 AND registration_id = ?4 AND expires_ms > ?5
               ORDER BY seq LIMIT ?6";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    // One more than asked for, to know whether there is more.
    let limit = integer(request.messages.saturating_add(1) as u64);
    let mut found = statement
        .query(params![
            request.account.as_bytes(),
            request.device.get(),
            integer(request.after.0),
            request.registration,
            integer(request.now_ms),
            limit,
        ])
        .map_err(failed)?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next().map_err(failed)? {
        if entries.len() >= request.messages || (bytes >= request.bytes && !entries.is_empty()) {
            return Ok(Page { entries, end: false });
        }
        let entry = envelope(row, request).map_err(failed)?;
        bytes += entry.weight();
        entries.push(entry);
    }
    Ok(Page { entries, end: true })
}

fn envelope(row: &Row<'_>, request: &PageRequest) -> rusqlite::Result<Envelope> {
    let key = MessageKey {
        account: AccountId::from_bytes(row.get(1)?),
        device: device(row, 2)?,
        id: MessageId::from_bytes(row.get(3)?),
    };
    let header = Header {
        seq: Seq(natural(row, 0)?),
        key,
        from: parsed(row, 4)?,
        class: decoded(&CLASSES, row, 5)?,
        ts_ms: natural(row, 6)?,
        expires_ms: natural(row, 7)?,
        origin: Origin {
            provider: parsed(row, 8)?,
            kind: decoded(&KINDS, row, 9)?,
            inbox: decoded(&INBOXES, row, 10)?,
        },
        charge: None,
        trace: None,
    };
    let enc = Enc {
        device: request.device,
        registration: request.registration,
        kind: decoded(&ENC_TYPES, row, 11)?,
        ciphertext: Bytes::from(row.get::<_, Vec<u8>>(12)?),
    };
    Ok(Envelope { header: Arc::new(header), enc })
}

/// What waits for all devices.
pub(super) fn depth(connection: &Connection) -> Result<Depth, StoreError> {
    let sum = "SELECT coalesce(sum(messages), 0), coalesce(sum(bytes), 0) FROM usage";
    let natural = |value: i64| u64::try_from(value).unwrap_or(0);
    let waiting = connection
        .query_row(sum, [], |row| Ok(Usage { messages: natural(row.get(0)?), bytes: natural(row.get(1)?) }))
        .map_err(failed)?;
    // They all live equally long.
    let oldest = "SELECT ts_ms FROM entries WHERE class = ?1 ORDER BY expires_ms LIMIT 1";
    let oldest = connection.query_row(oldest, [code(&CLASSES, &Class::Chat)], |row| row.get::<_, i64>(0));
    let oldest_ms = oldest.optional().map_err(failed)?.map(natural);
    Ok(Depth { waiting, oldest_ms })
}

fn decoded<T: Copy>(list: &[T], row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let code: i64 = row.get(column)?;
    decode(list, code).ok_or(out_of_range(column, code))
}

fn device(row: &Row<'_>, column: usize) -> rusqlite::Result<DeviceId> {
    let number: i64 = row.get(column)?;
    let device = u32::try_from(number).ok().and_then(|number| DeviceId::new(number).ok());
    device.ok_or(out_of_range(column, number))
}

fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| out_of_range(column, 0))
}

/// SQLite's integers are signed; what routing keeps stays far below their limit.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn natural(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| out_of_range(column, value))
}

const fn out_of_range(column: usize, value: i64) -> rusqlite::Error {
    rusqlite::Error::IntegralValueOutOfRange(column, value)
}
