//! Values of rows.

use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use causeway_identity::{AccountId, DeviceId, MessageId};
use causeway_postgres::types::{IsNull, Type, to_sql_checked};
use causeway_postgres::{FromSql, PostgresError, Row, ToSql};

use crate::mailbox::codes::{CLASSES, ENC_TYPES, INBOXES, KINDS, code, decode};
use crate::mailbox::{Depth, DeviceUsage, Page, PageRequest, Put, Replica, ReplicaId, Usage};
use crate::message::{Enc, Envelope, Header, MessageKey, Origin, Seq, weight};

/// 16 bytes as `uuid`, which PostgreSQL compares fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub(super) [u8; 16]);

impl From<AccountId> for Id {
    fn from(account: AccountId) -> Self {
        Self(*account.as_bytes())
    }
}

impl From<ReplicaId> for Id {
    fn from(replica: ReplicaId) -> Self {
        Self(*replica.as_bytes())
    }
}

impl From<MessageId> for Id {
    fn from(message: MessageId) -> Self {
        Self(*message.as_bytes())
    }
}

impl ToSql for Id {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Id {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::UUID
    }
}

/// A column's value, or which one is damaged.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, PostgresError> {
    row.try_get(column).map_err(|_| damaged(column))
}

pub(super) fn damaged(column: usize) -> PostgresError {
    PostgresError::Value(format!("an entry is damaged in column {column}"))
}

pub(super) fn account(row: &Row, column: usize) -> Result<AccountId, PostgresError> {
    get::<Id>(row, column).map(|id| AccountId::from_bytes(id.0))
}

pub(super) fn replica(row: &Row, column: usize) -> Result<ReplicaId, PostgresError> {
    get::<Id>(row, column).map(|id| ReplicaId::from_bytes(id.0))
}

/// From columns with a replica's id and URL.
pub(super) fn known_replica(row: &Row, column: usize) -> Result<Replica, PostgresError> {
    Ok(Replica { id: replica(row, column)?, url: get(row, column + 1)? })
}

pub(super) fn device(row: &Row, column: usize) -> Result<DeviceId, PostgresError> {
    let number: i32 = get(row, column)?;
    let device = u32::try_from(number).ok().and_then(|number| DeviceId::new(number).ok());
    device.ok_or_else(|| damaged(column))
}

pub(super) fn natural(row: &Row, column: usize) -> Result<u64, PostgresError> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| damaged(column))
}

/// What waits for all devices.
pub(super) fn depth(row: &Row) -> Result<Depth, PostgresError> {
    let oldest: Option<i64> = get(row, 2)?;
    Ok(Depth { waiting: usage(row, 0)?, oldest_ms: oldest.and_then(|ms| u64::try_from(ms).ok()) })
}

/// From columns with messages and bytes.
pub(super) fn usage(row: &Row, column: usize) -> Result<Usage, PostgresError> {
    Ok(Usage { messages: natural(row, column)?, bytes: natural(row, column + 1)? })
}

/// A row of the statement `USAGE`.
pub(super) fn device_usage(row: &Row) -> Result<(AccountId, DeviceUsage), PostgresError> {
    let known = DeviceUsage { device: device(row, 1)?, usage: usage(row, 2)?, last: Seq(natural(row, 4)?) };
    Ok((account(row, 0)?, known))
}

/// PostgreSQL's integers are signed; what routing keeps stays far below their limit.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The wire allows device ids up to 2^31 - 1.
pub(super) fn device_number(device: DeviceId) -> i32 {
    i32::try_from(device.get()).unwrap_or(i32::MAX)
}

/// The columns of entries to insert.
#[derive(Default)]
pub(super) struct Columns<'a> {
    account: Vec<Id>,
    device: Vec<i32>,
    seq: Vec<i64>,
    registration: Vec<i64>,
    sender_account: Vec<Id>,
    sender_device: Vec<i32>,
    message: Vec<Id>,
    sender_address: Vec<&'a str>,
    class: Vec<i16>,
    ts_ms: Vec<i64>,
    expires_ms: Vec<i64>,
    origin_provider: Vec<&'a str>,
    origin_kind: Vec<i16>,
    inbox: Vec<i16>,
    enc_type: Vec<i16>,
    weight: Vec<i64>,
    ciphertext: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    pub(super) fn push(&mut self, put: &'a Put, part: &'a Enc) {
        let header = &put.header;
        self.account.push(put.account.into());
        self.device.push(device_number(part.device));
        self.seq.push(integer(header.seq.0));
        self.registration.push(part.registration.into());
        self.sender_account.push(header.key.account.into());
        self.sender_device.push(device_number(header.key.device));
        self.message.push(header.key.id.into());
        self.sender_address.push(header.from.as_str());
        self.class.push(code(&CLASSES, &header.class));
        self.ts_ms.push(integer(header.ts_ms));
        self.expires_ms.push(integer(header.expires_ms));
        self.origin_provider.push(header.origin.provider.as_str());
        self.origin_kind.push(code(&KINDS, &header.origin.kind));
        self.inbox.push(code(&INBOXES, &header.origin.inbox));
        self.enc_type.push(code(&ENC_TYPES, &part.kind));
        self.weight.push(integer(weight(part) as u64));
        self.ciphertext.push(&part.ciphertext);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.account.is_empty()
    }

    pub(super) fn values(&self) -> [&(dyn ToSql + Sync); 17] {
        [
            &self.account,
            &self.device,
            &self.seq,
            &self.registration,
            &self.sender_account,
            &self.sender_device,
            &self.message,
            &self.sender_address,
            &self.class,
            &self.ts_ms,
            &self.expires_ms,
            &self.origin_provider,
            &self.origin_kind,
            &self.inbox,
            &self.enc_type,
            &self.weight,
            &self.ciphertext,
        ]
    }
}

/// Rows of the statement `PAGE`.
pub(super) fn page(rows: &[Row], request: &PageRequest) -> Result<Page, PostgresError> {
    let found = rows.first().map_or(Ok(0), |row| natural(row, 13))?;
    let entries: Vec<Envelope> = rows.iter().map(|row| envelope(row, request)).collect::<Result<_, _>>()?;
    let end = entries.len() as u64 == found;
    Ok(Page { entries, end })
}

fn envelope(row: &Row, request: &PageRequest) -> Result<Envelope, PostgresError> {
    let key = MessageKey {
        account: account(row, 1)?,
        device: device(row, 2)?,
        id: MessageId::from_bytes(get::<Id>(row, 3)?.0),
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
        ciphertext: Bytes::copy_from_slice(get::<&[u8]>(row, 12)?),
    };
    Ok(Envelope { header: Arc::new(header), enc })
}

fn decoded<T: Copy>(list: &[T], row: &Row, column: usize) -> Result<T, PostgresError> {
    let code: i16 = get(row, column)?;
    decode(list, code.into()).ok_or_else(|| damaged(column))
}

fn parsed<T: FromStr>(row: &Row, column: usize) -> Result<T, PostgresError> {
    get::<&str>(row, column)?.parse().map_err(|_| damaged(column))
}
