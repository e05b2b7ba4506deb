//! What is looked at in a restored database.

use std::time::Duration;

use super::{
    Report, Request,
    server::{PORT, Session, ThrowAway, told},
};
use crate::{
    model::counted,
    postgres::Installation,
    sys::process::{ProcessError, Run},
};

/// `pg_amcheck` reads every page of every table and index.
const CHECK_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Every table whose rows are its own: partitioned tables have theirs in their partitions.
const TABLES: &str = "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm') and c.relpersistence = 'p' and (c.relkind = 'r' or c.relispopulated)
      and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast'
    order by 1";

const DATABASES: &str = "select datname from pg_database where datallowconn and not datistemplate order by 1";

/// Looks; what is wrong is added to the report, and what was not looked at too.
pub async fn look(session: &Session, server: &ThrowAway, request: &Request, report: &mut Report) {
    own_checks(session, request, report).await;
    if request.count_rows {
        match names(session, DATABASES).await {
            Ok(databases) => count(server, request, &databases, report).await,
            Err(why) => report.problems.push(format!("its databases cannot be listed: {why}")),
        }
    }
    amcheck(session, server, request, report).await;
}

async fn own_checks(session: &Session, request: &Request, report: &mut Report) {
    for check in &request.checks {
        match session.client.query(check.as_str(), &[]).await {
            Ok(rows) => match rows.as_slice() {
                [row] if row.try_get::<_, bool>(0).unwrap_or(false) => report.notes.push(format!("'{check}' is true")),
                _ => report.problems.push(format!("'{check}' is not true")),
            },
            Err(error) => report.problems.push(format!("'{check}' fails: {}", told(&error))),
        }
    }
}

/// Counts every row, which reads every page of every table.
async fn count(server: &ThrowAway, request: &Request, databases: &[String], report: &mut Report) {
    let (mut tables, mut rows) = (0_u64, 0_u64);
    for database in databases {
        match server.connect(&request.user, database).await {
            Ok(session) => match names(&session, TABLES).await {
                Ok(names) => {
                    for name in names {
                        match session.client.query_one(&format!("select count(*) from only {name}"), &[]).await {
                            Ok(row) => rows = rows.saturating_add(row.get::<_, i64>(0).unsigned_abs()),
                            Err(error) => {
                                report.problems.push(format!("table {name} of database '{database}' cannot be read: {}", told(&error)))
                            }
                        }
                        tables += 1;
                    }
                }
                Err(why) => report.problems.push(format!("the tables of database '{database}' cannot be listed: {why}")),
            },
            Err(error) => report.problems.push(format!("database '{database}' cannot be connected to: {}", told(&error))),
        }
    }
    report.notes.push(format!(
        "{} in {} of {} were read",
        counted(rows, "row"),
        counted(tables, "table"),
        counted(databases.len() as u64, "database")
    ));
}

async fn names(session: &Session, query: &str) -> Result<Vec<String>, String> {
    let rows = session.client.query(query, &[]).await.map_err(|error| told(&error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Tables and indexes against each other, where the extension is there.
async fn amcheck(session: &Session, server: &ThrowAway, request: &Request, report: &mut Report) {
    let available = session.client.query("select 1 from pg_available_extensions where name = 'amcheck'", &[]).await;
    if !available.is_ok_and(|rows| !rows.is_empty()) {
        report.notes.push("not checked with pg_amcheck: the extension amcheck is not installed here".to_owned());
        return;
    }
    let program = Installation { data_dir: "".into(), bin_dir: request.bin_dir.clone(), passfile: "".into() }.program("pg_amcheck");
    let run = Run::new(program)
        .args([
            "--all",
            "--install-missing",
            "--no-password",
            "--host",
            server.host(),
            "--port",
            &PORT.to_string(),
            "--username",
            &request.user,
        ])
        .without_env("PG")
        .limit(CHECK_LIMIT);
    match run.output().await {
        Ok(_) => report.notes.push("pg_amcheck has found nothing wrong".to_owned()),
        Err(error @ ProcessError::Start { .. }) => report.notes.push(format!("not checked with pg_amcheck: {error}")),
        Err(error) => report.problems.push(format!("pg_amcheck: {error}")),
    }
}
