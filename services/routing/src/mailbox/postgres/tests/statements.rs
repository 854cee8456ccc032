//! The account leads every key of accounts' tables, and every statement finds its rows by it: so they can be distributed.

use causeway_test_servers::Postgres as Server;

use super::{config, open};
use crate::mailbox::postgres::sql;

/// Statements that look at all accounts, and the one index that is for them.
const GLOBAL: &[&str] = &["EXPIRE", "DEPTH"];
const GLOBAL_INDEX: &str = "mailbox_entries_expiry";
/// Tables that are not of accounts: one row a process.
const REGISTRIES: &[&str] = &["mailbox_replicas", "mailbox_writers"];
const OF_ACCOUNTS: &[&str] = &["mailbox_entries", "mailbox_owners", "mailbox_usage"];

/// All statements, by name: whatever is a constant text in `sql.rs`.
fn statements() -> Vec<(String, String)> {
    let source = include_str!("../sql.rs");
    let all = source.split("pub(super) const ").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once(": &str =")?;
        let text = rest.split_once('"')?.1.split_once("\";")?.0;
        Some((name.to_owned(), text.trim_start_matches("\\\n").to_owned()))
    });
    all.collect()
}

#[test]
fn the_list_of_statements_is_whole() {
    let all = statements();
    assert!(all.iter().any(|(name, text)| name == "HOLDS" && text == sql::HOLDS));
    assert!(all.len() >= 25, "{}", all.len());
    for text in sql::WRITING {
        assert!(all.iter().any(|(_, known)| known == text), "{text}");
    }
    // No statement is anywhere else.
    let sources = [include_str!("../batch.rs"), include_str!("../claims.rs"), include_str!("../writer.rs")];
    for source in sources.into_iter().chain([include_str!("../../postgres.rs")]) {
        for keyword in ["SELECT ", "INSERT INTO", "DELETE FROM", "UPDATE mailbox"] {
            assert!(!source.contains(keyword), "{keyword}");
        }
    }
}

#[tokio::test]
async fn the_account_leads_every_key() {
    let server = Server::start().unwrap();
    let url = server.create_database().unwrap();
    drop(open(&config(url.clone())).await);
    let database = url.rsplit('/').next().unwrap();
    let indexes = "SELECT t.relname, i.relname, a.attname, x.indisprimary FROM pg_index x \
        JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid \
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0] WHERE t.relname LIKE 'mailbox%'";
    let (mut primary, mut tables) = (Vec::new(), Vec::new());
    for row in server.execute(database, indexes).unwrap() {
        let text = |column: usize| row[column].clone().unwrap();
        let (table, index, first) = (text(0), text(1), text(2));
        tables.push(table.clone());
        if OF_ACCOUNTS.contains(&table.as_str()) {
            assert!(first == "account_id" || index == GLOBAL_INDEX, "{index} begins with {first}");
        } else {
            assert!(REGISTRIES.contains(&table.as_str()), "a table that is not known: {table}");
        }
        if text(3) == "t" {
            primary.push(table);
        }
    }
    for table in OF_ACCOUNTS.iter().chain(REGISTRIES) {
        assert!(primary.iter().any(|known| known == table), "{table} has no primary key");
    }
}

/// Where a plan reads tables of accounts, and by what.
fn scans(plan: &[String]) -> Vec<(String, String)> {
    let mut scans = Vec::new();
    for (at, line) in plan.iter().enumerate() {
        let of_accounts = OF_ACCOUNTS.iter().any(|table| line.contains(&format!(" on {table}")));
        if of_accounts && line.contains("Scan") {
            // The condition is below, and deeper than the node.
            let depth = |line: &str| line.len() - line.trim_start_matches([' ', '-', '>']).len();
            let below = plan[at + 1..].iter().take_while(|next| depth(next) > depth(line));
            let condition = below.into_iter().find(|next| next.contains("Index Cond:")).cloned().unwrap_or_default();
            scans.push((line.clone(), condition));
        }
    }
    scans
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_the_account() {
    let server = Server::start().unwrap();
    let url = server.create_database().unwrap();
    drop(open(&config(url.clone())).await);
    let mut session = server.session(url.rsplit('/').next().unwrap()).unwrap();
    for (setting, value) in sql::SETTINGS {
        session.execute(&format!("SET {setting} = {value}")).unwrap();
    }
    let mut of_accounts = 0;
    for (name, text) in statements() {
        let values = (1..20).take_while(|number| text.contains(&format!("${number}"))).count();
        session.execute(&format!("PREPARE s AS {text}")).unwrap();
        let values = vec!["NULL"; values].join(", ");
        let values = if values.is_empty() { values } else { format!("({values})") };
        let plan = session.execute(&format!("EXPLAIN EXECUTE s{values}")).unwrap();
        session.execute("DEALLOCATE s").unwrap();
        let plan: Vec<String> = plan.into_iter().filter_map(|row| row[0].clone()).collect();
        if GLOBAL.contains(&name.as_str()) {
            assert!(plan.iter().any(|line| line.contains(GLOBAL_INDEX)), "{name}: {plan:#?}");
            continue;
        }
        for (scan, condition) in scans(&plan) {
            of_accounts += 1;
            let by_account = !scan.contains("Seq Scan") && condition.contains("account_id = ");
            assert!(by_account, "{name} reads by something else: {scan} {condition}\n{plan:#?}");
        }
        let inserts = OF_ACCOUNTS.iter().filter(|table| text.contains(&format!("INSERT INTO {table}")));
        for table in inserts {
            let columns = text.split_once(&format!("INSERT INTO {table}")).unwrap().1;
            assert!(columns.split_once('(').unwrap().1.starts_with("account_id"), "{name}");
        }
    }
    assert!(of_accounts >= 15, "the plans were understood: {of_accounts}");
}
