//! The texts of all statements on the tables of accounts and providers. What concerns an account names it as `$1`, in each
//! table that it touches, so that a distributed database finds the one place where the account is; `tests` hold the
//! texts to that.
//!
//! Nobody else can make a [`Sql`], so that none is overlooked.

/// The text of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sql(&'static str);

impl Sql {
    pub(super) const fn text(self) -> &'static str {
        self.0
    }
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* pub(super) const $name: Sql = Sql($text);)*

        #[cfg(test)]
        const ALL: &[(&str, Sql)] = &[$((stringify!($name), $name)),*];
    };
}

statements! {
    // Accounts

    /// The one place where an account is looked for without its id.
    ACCOUNT_OF_ADDRESS = "SELECT account_id FROM addresses WHERE address = $1";
    /// Waits for whoever is taking the same address, and finds out whether he got it.
    TAKE_ADDRESS = "INSERT INTO addresses (account_id, address) VALUES ($1, $2) ON CONFLICT (address) DO NOTHING";
    FREE_ADDRESS = "DELETE FROM addresses WHERE account_id = $1 AND address = $2";
    /// Who changes an account, or takes keys from it, holds this row until the end of the transaction.
    LOCK_ACCOUNT = "SELECT address FROM accounts WHERE account_id = $1 FOR UPDATE";
    /// The same for several, in an order, so that nobody waits in a circle.
    LOCK_ACCOUNTS = "
        SELECT account_id, address FROM accounts WHERE account_id = ANY($1::bytea[]) ORDER BY account_id FOR UPDATE";
    /// The same, but gives nothing for those that somebody else holds.
    LOCK_ACCOUNTS_IF_FREE = "
        SELECT account_id, address FROM accounts WHERE account_id = ANY($1::bytea[]) FOR UPDATE SKIP LOCKED";
    CREATE_ACCOUNT = "
        INSERT INTO accounts (account_id, address, provider_id, created_ms, interop, inbox, reach)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account_id) DO NOTHING";
    WAS_WITHDRAWN = "SELECT 1 FROM withdrawn WHERE account_id = $1";
    /// A row a device, or one without a device; in one statement, so that it is one reading.
    RECORD = "
        SELECT a.address, a.interop, a.inbox, a.reach, p.provider_id, p.domain, p.kind, p.status,
            ARRAY(SELECT r.provider FROM provider_rules r WHERE r.account_id = $1 ORDER BY r.provider),
            ARRAY(SELECT r.allow FROM provider_rules r WHERE r.account_id = $1 ORDER BY r.provider),
            d.device_id, d.noise_key, d.registration_id, d.identity_key, d.enlisted_ms, d.push_token
        FROM accounts a
        JOIN providers p ON p.provider_id = a.provider_id
        LEFT JOIN devices d ON d.account_id = $1
        WHERE a.account_id = $1
        ORDER BY d.device_id";
    /// What a login needs to know; of each kind no more than $3 one-time keys are counted.
    KNOWN_DEVICE = "
        SELECT d.noise_key, d.registration_id, (SELECT count(*) FROM devices o WHERE o.account_id = $1),
            (SELECT count(*) FROM (SELECT 1 FROM one_time_prekeys e
                WHERE e.account_id = $1 AND e.device_id = $2 AND e.kind = 1 AND e.public_key IS NOT NULL LIMIT $3) ec),
            (SELECT count(*) FROM (SELECT 1 FROM one_time_prekeys k
                WHERE k.account_id = $1 AND k.device_id = $2 AND k.kind = 2 AND k.public_key IS NOT NULL LIMIT $3) kyber)
        FROM devices d WHERE d.account_id = $1 AND d.device_id = $2";
    DELETE_ACCOUNT = "DELETE FROM accounts WHERE account_id = $1";
    REMEMBER_WITHDRAWN = "INSERT INTO withdrawn (account_id, withdrawn_ms) VALUES ($1, $2)";
    CONSENT = "
        SELECT a.interop, a.inbox, a.reach,
            ARRAY(SELECT r.provider FROM provider_rules r WHERE r.account_id = $1 ORDER BY r.provider),
            ARRAY(SELECT r.allow FROM provider_rules r WHERE r.account_id = $1 ORDER BY r.provider)
        FROM accounts a WHERE a.account_id = $1";
    SET_CONSENT = "UPDATE accounts SET interop = $2, inbox = $3, reach = $4 WHERE account_id = $1";
    DELETE_RULES = "DELETE FROM provider_rules WHERE account_id = $1";
    INSERT_RULES = "
        INSERT INTO provider_rules (account_id, provider, allow)
        SELECT $1::bytea, new.provider, new.allow FROM unnest($2::text[], $3::boolean[]) AS new (provider, allow)";

    // Devices

    DEVICES = "SELECT device_id, noise_key, registration_id, identity_key FROM devices WHERE account_id = $1";
    IS_ENLISTED = "SELECT 1 FROM devices WHERE account_id = $1 AND device_id = $2";
    INSERT_DEVICE = "
        INSERT INTO devices (account_id, device_id, noise_key, registration_id, identity_key, enlisted_ms, signed_id,
            signed_key, signed_signature, last_resort_id, last_resort_key, last_resort_signature)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    DELETE_DEVICE = "DELETE FROM devices WHERE account_id = $1 AND device_id = $2 RETURNING noise_key";
    DELETE_DEVICES = "DELETE FROM devices WHERE account_id = $1 RETURNING noise_key";
    PUSH_TOKEN = "SELECT push_token FROM devices WHERE account_id = $1 AND device_id = $2";
    SET_PUSH = "UPDATE devices SET push_token = $3 WHERE account_id = $1 AND device_id = $2";
    FREED_DEVICES = "SELECT device_id FROM freed_devices WHERE account_id = $1 ORDER BY place";
    FREE_DEVICE = "
        INSERT INTO freed_devices (account_id, device_id, place)
        SELECT $1::bytea, $2::integer, coalesce(max(place), 0) + 1 FROM freed_devices WHERE account_id = $1";
    REUSE_DEVICE = "DELETE FROM freed_devices WHERE account_id = $1 AND device_id = $2";
    DELETE_FREED = "DELETE FROM freed_devices WHERE account_id = $1";

    // Noise keys of devices that are no more: they outlive the account, so what leads is the digest of the address.

    IS_RETIRED = "SELECT 1 FROM retired_keys WHERE owner = $1 AND noise_key = $2 AND until_ms > $3";
    RETIRE = "
        INSERT INTO retired_keys (owner, noise_key, until_ms)
        SELECT $1::bytea, key, $3::bigint FROM unnest($2::bytea[]) AS key
        ON CONFLICT (owner, noise_key) DO UPDATE SET until_ms = excluded.until_ms";
    FORGET_SURPLUS_RETIRED = "
        DELETE FROM retired_keys WHERE owner = $1 AND noise_key IN (
            SELECT noise_key FROM retired_keys WHERE owner = $1 ORDER BY until_ms DESC OFFSET $2)";
    /// Passes over what others hold, so that it waits for nobody.
    FORGET_RETIRED = "
        DELETE FROM retired_keys WHERE (owner, noise_key) IN (
            SELECT owner, noise_key FROM retired_keys WHERE until_ms <= $1 ORDER BY until_ms LIMIT 100
            FOR UPDATE SKIP LOCKED)";

    // Prekeys

    IDENTITY = "SELECT identity_key FROM devices WHERE account_id = $1 AND device_id = $2";
    SET_SIGNED = "
        UPDATE devices SET signed_id = $3, signed_key = $4, signed_signature = $5
        WHERE account_id = $1 AND device_id = $2";
    SET_LAST_RESORT = "
        UPDATE devices SET last_resort_id = $3, last_resort_key = $4, last_resort_signature = $5
        WHERE account_id = $1 AND device_id = $2";
    /// Those of the digests that are in store or remembered.
    KNOWN_PREKEYS = "
        SELECT digest FROM one_time_prekeys WHERE account_id = $1 AND device_id = $2 AND digest = ANY($3::bytea[])";
    LAST_PLACES = "
        SELECT
            (SELECT max(place) FROM one_time_prekeys WHERE account_id = $1 AND device_id = $2 AND kind = 1),
            (SELECT max(place) FROM one_time_prekeys WHERE account_id = $1 AND device_id = $2 AND kind = 2)";
    REPLACE_PREKEYS = "
        DELETE FROM one_time_prekeys
        WHERE account_id = $1 AND device_id = $2 AND kind = $3 AND key_id = ANY($4::integer[])
            AND public_key IS NOT NULL";
    INSERT_PREKEYS = "
        INSERT INTO one_time_prekeys (account_id, device_id, kind, place, key_id, digest, public_key, signature)
        SELECT $1::bytea, $2::integer, $3::smallint, $4::bigint + new.n, new.key_id, new.digest, new.public_key,
            new.signature
        FROM unnest($5::integer[], $6::bytea[], $7::bytea[], $8::bytea[]) WITH ORDINALITY
            AS new (key_id, digest, public_key, signature, n)";
    DROP_SURPLUS_PREKEYS = "
        DELETE FROM one_time_prekeys
        WHERE account_id = $1 AND device_id = $2 AND kind = $3 AND public_key IS NOT NULL AND place <= (
            SELECT place FROM one_time_prekeys
            WHERE account_id = $1 AND device_id = $2 AND kind = $3 AND public_key IS NOT NULL
            ORDER BY place DESC LIMIT 1 OFFSET $4)";
    DELETE_PREKEYS_OF_DEVICE = "DELETE FROM one_time_prekeys WHERE account_id = $1 AND device_id = $2";
    DELETE_PREKEYS = "DELETE FROM one_time_prekeys WHERE account_id = $1";
    KEY_COUNTS = "
        SELECT
            (SELECT count(*) FROM one_time_prekeys
             WHERE account_id = $1 AND device_id = $2 AND kind = 1 AND public_key IS NOT NULL),
            (SELECT count(*) FROM one_time_prekeys
             WHERE account_id = $1 AND device_id = $2 AND kind = 2 AND public_key IS NOT NULL)
        FROM devices WHERE account_id = $1 AND device_id = $2";
    /// What bundles are made of, but for the one-time keys; with what is in store now.
    BUNDLES = "
        SELECT d.device_id, d.registration_id, d.identity_key, d.signed_id, d.signed_key, d.signed_signature,
            d.last_resort_id, d.last_resort_key, d.last_resort_signature,
            (SELECT count(*) FROM one_time_prekeys k
             WHERE k.account_id = $1 AND k.device_id = d.device_id AND k.kind = 1 AND k.public_key IS NOT NULL),
            (SELECT count(*) FROM one_time_prekeys k
             WHERE k.account_id = $1 AND k.device_id = d.device_id AND k.kind = 2 AND k.public_key IS NOT NULL)
        FROM devices d WHERE d.account_id = $1 AND d.device_id = ANY($2::integer[])";
    /// Takes from each of the devices as many keys of each kind as it has claims, those that were uploaded first: their rows
    /// stay, without the keys, for as long as they are remembered. Keys leave in the order of their places, so what is $4
    /// behind was handed out long ago. Devices are named by their accounts, ids and numbers of claims; each once.
    ///
    /// Gives for the n-th of them a row without a place (what a bundle is made of, but for the one-time keys, and the counts
    /// from before), if it is there, and a row with its place for each key.
    ///
    /// Sound only under the locks of the accounts, taken by a statement before: this one reads what is there when it
    /// begins. Were it not so, `taken` finds the key gone and gives nothing, rather than giving it twice.
    TAKE_PREKEYS = "
        WITH asked AS MATERIALIZED (
            SELECT * FROM unnest($1::bytea[], $2::integer[], $3::bigint[]) WITH ORDINALITY
                AS asked (account_id, device_id, claims, n)
        ), first AS MATERIALIZED (
            SELECT asked.n, asked.account_id, f.device_id, f.kind, f.place, f.key_id, f.public_key, f.signature
            FROM asked
            CROSS JOIN (VALUES (1::smallint), (2::smallint)) AS kind (number)
            CROSS JOIN LATERAL (
                SELECT k.* FROM one_time_prekeys k
                WHERE k.account_id = asked.account_id AND k.device_id = asked.device_id AND k.kind = kind.number
                    AND k.public_key IS NOT NULL
                ORDER BY k.place LIMIT asked.claims) AS f
        ), taken AS (
            UPDATE one_time_prekeys k SET public_key = NULL, signature = NULL FROM first
            WHERE k.account_id = first.account_id AND k.device_id = first.device_id AND k.kind = first.kind
                AND k.place = first.place AND k.public_key IS NOT NULL
            RETURNING first.n, first.place, first.kind, first.key_id, first.public_key, first.signature
        ), forgotten AS (
            DELETE FROM one_time_prekeys k USING first
            WHERE k.account_id = first.account_id AND k.device_id = first.device_id AND k.kind = first.kind
                AND k.place <= first.place - $4::bigint AND k.public_key IS NULL
        )
        SELECT asked.n, NULL::bigint, d.device_id, d.registration_id, d.identity_key,
            d.signed_id, d.signed_key, d.signed_signature,
            d.last_resort_id, d.last_resort_key, d.last_resort_signature,
            (SELECT count(*) FROM one_time_prekeys k
             WHERE k.account_id = asked.account_id AND k.device_id = d.device_id AND k.kind = 1
                AND k.public_key IS NOT NULL),
            (SELECT count(*) FROM one_time_prekeys k
             WHERE k.account_id = asked.account_id AND k.device_id = d.device_id AND k.kind = 2
                AND k.public_key IS NOT NULL)
        FROM asked JOIN devices d ON d.account_id = asked.account_id AND d.device_id = asked.device_id
        UNION ALL
        SELECT taken.n, taken.place, taken.kind::integer, NULL, NULL, taken.key_id, taken.public_key, taken.signature,
            NULL, NULL, NULL, NULL, NULL
        FROM taken";

    // Providers

    /// Who registers or changes a provider holds this row, so that domains, issuers and their number are what he saw.
    LOCK_PROVIDERS = "SELECT only_one FROM providers_lock WHERE only_one FOR UPDATE";
    PROVIDER = "
        SELECT provider_id, domain, issuer, kind, status, revision, registered_ms, settings
        FROM providers WHERE domain = $1";
    PROVIDERS = "
        SELECT provider_id, domain, issuer, kind, status, revision, registered_ms, settings
        FROM providers WHERE domain > $1 ORDER BY domain LIMIT $2";
    PROVIDER_OF_ISSUER = "SELECT provider_id FROM providers WHERE issuer = $1";
    COUNT_PROVIDERS = "SELECT count(*) FROM providers";
    INSERT_PROVIDER = "
        INSERT INTO providers (provider_id, domain, issuer, kind, status, revision, registered_ms, settings, jwks,
            jwks_count, jwks_fetched_ms)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    UPDATE_PROVIDER = "
        UPDATE providers SET issuer = $2, settings = $3, revision = $4, jwks = $5, jwks_count = $6,
            jwks_fetched_ms = $7
        WHERE provider_id = $1
        RETURNING provider_id, domain, issuer, kind, status, revision, registered_ms, settings";
    SET_PROVIDER_STATUS = "
        UPDATE providers SET status = $2 WHERE domain = $1
        RETURNING provider_id, domain, issuer, kind, status, revision, registered_ms, settings";
    LOCK_TOKEN_KEYS = "
        SELECT domain, jwks, jwks_fetched_ms FROM providers WHERE provider_id = $1 AND revision = $2 FOR UPDATE";
    KEEP_TOKEN_KEYS = "
        UPDATE providers SET jwks = $2, jwks_count = $3, jwks_fetched_ms = $4 WHERE provider_id = $1";
    TOKEN_KEYS = "SELECT jwks, jwks_count, jwks_fetched_ms FROM providers WHERE provider_id = $1";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables whose rows belong to an account.
    const OF_ACCOUNTS: [&str; 6] =
        ["accounts", "provider_rules", "devices", "freed_devices", "one_time_prekeys", "withdrawn"];
    /// Those that belong to none, or to one that is not known yet: see the comments in `schema`.
    const OTHERS: [&str; 4] = ["providers", "providers_lock", "addresses", "retired_keys"];

    /// The words of a statement; brackets, commas and signs are words of their own.
    fn words(sql: Sql) -> Vec<String> {
        let mut spaced = String::new();
        for character in sql.text().chars() {
            if character.is_alphanumeric() || "_$.".contains(character) {
                spaced.push(character);
            } else {
                spaced.push(' ');
                spaced.push(character);
                spaced.push(' ');
            }
        }
        spaced.split_whitespace().map(str::to_owned).collect()
    }

    /// Each table that the statement reads or writes, and the name that it goes by.
    fn tables(words: &[String]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (place, word) in words.iter().enumerate() {
            let opens = ["FROM", "JOIN", "INTO", "UPDATE", "USING"].contains(&word.as_str());
            let Some(table) = words.get(place + 1).filter(|_| opens) else { continue };
            if !OF_ACCOUNTS.contains(&table.as_str()) && !OTHERS.contains(&table.as_str()) {
                continue;
            }
            let alias = words.get(place + 2).filter(|word| word.chars().all(|c| c.is_ascii_lowercase()));
            found.push((table.clone(), alias.cloned().unwrap_or_default()));
        }
        found
    }

    /// Tables of accounts that the statement touches without naming the account in them as `$1`, or as one of the accounts
    /// in `$1` where it is for several.
    fn unbound(sql: Sql) -> Vec<String> {
        let words = words(sql);
        let tables = tables(&words);
        let joined = words.join(" ");
        let inserts = joined.contains("VALUES ( $1 ,") || joined.contains("SELECT $1 : : bytea ,");
        let inserted = if inserts { joined.matches("INSERT INTO").count() } else { 0 };
        let of_accounts = |table: &String| OF_ACCOUNTS.contains(&table.as_str());
        let is_bound = |alias: &String| {
            let column = if alias.is_empty() { "account_id".to_owned() } else { format!("{alias}.account_id") };
            let touched = tables.iter().filter(|(table, other)| other == alias && of_accounts(table)).count();
            let one = joined.matches(&format!(" {column} = $1")).count();
            let any = joined.matches(&format!(" {column} = ANY ( $1")).count();
            let listed =
                ["asked", "first"].map(|list| joined.matches(&format!(" {column} = {list}.account_id")).count());
            let listed: usize = if lists_accounts(&joined) { listed.iter().sum() } else { 0 };
            let inserted = if alias.is_empty() { inserted } else { 0 };
            one + any + listed + inserted >= touched
        };
        let unbound = tables.iter().filter(|(table, alias)| of_accounts(table) && !is_bound(alias));
        unbound.map(|(table, _)| table.clone()).collect()
    }

    /// `asked` holds accounts of `$1`, and `first`, if there is one, accounts of `asked`.
    fn lists_accounts(joined: &str) -> bool {
        let asked = joined.contains("WITH asked AS MATERIALIZED ( SELECT * FROM unnest ( $1 : : bytea")
            && joined.contains("AS asked ( account_id ,");
        let first = "first AS MATERIALIZED ( SELECT asked.n , asked.account_id , ";
        asked && (!joined.contains(" first AS ") || joined.contains(first))
    }

    #[test]
    fn every_statement_binds_the_account_in_each_table_that_it_touches() {
        for (name, sql) in ALL {
            assert!(!tables(&words(*sql)).is_empty(), "{name} touches no table that is known");
            assert_eq!(unbound(*sql), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn inserts_lead_with_the_account() {
        for (name, sql) in ALL {
            let text = words(*sql).join(" ");
            for table in OF_ACCOUNTS.into_iter().chain(["addresses"]) {
                if let Some((_, columns)) = text.split_once(&format!("INSERT INTO {table} ( ")) {
                    assert!(columns.starts_with("account_id ,"), "{name}");
                }
            }
        }
    }

    #[test]
    fn the_check_sees_what_is_wrong() {
        let alias = |sql| tables(&words(Sql(sql)));
        assert_eq!(alias("SELECT 1 FROM devices d WHERE x"), [("devices".to_owned(), "d".to_owned())]);
        assert_eq!(alias("UPDATE accounts SET x"), [("accounts".to_owned(), String::new())]);
        let wrong = |sql| unbound(Sql(sql));
        assert_eq!(wrong("WITH a AS (DELETE FROM devices) SELECT 1 FROM a"), ["devices"]);
        assert_eq!(wrong("SELECT 1 FROM devices WHERE account_id > $1"), ["devices"]);
        assert_eq!(wrong("SELECT 1 FROM devices WHERE account_id = $2"), ["devices"]);
        let joined = "SELECT 1 FROM accounts a JOIN devices d ON d.account_id = a.account_id WHERE a.account_id = $1";
        assert_eq!(wrong(joined), ["devices"]);
        let list = "SELECT 1 FROM devices d JOIN asked ON d.account_id = asked.account_id";
        assert_eq!(wrong(list), ["devices"]);
        let inner = "DELETE FROM devices WHERE account_id = $1 AND device_id = (SELECT max(device_id) FROM devices)";
        assert_eq!(wrong(inner), ["devices", "devices"]);
        assert_eq!(
            wrong("INSERT INTO withdrawn (account_id) SELECT account_id FROM accounts"),
            ["withdrawn", "accounts"]
        );
    }
}
