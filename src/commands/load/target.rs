//! The server that is loaded into, looked at before anything is changed on it.

use anyhow::anyhow;
use tracing::{info, warn};

use crate::cli::LoadArgs;
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::file_kind::FileKind;
use crate::model::load_target::{LoadTarget, QUESTION, TABLES};
use crate::model::loader_command::LoaderCommand;
use crate::model::units::first_few;
use crate::retrieval::NAMED_MAX;
use crate::retrieval::plan::Plan;
use crate::sql_client::{Connection, SqlClient};

/// Databases of the server itself: its users and rights, among others.
const SYSTEM: [&str; 2] = ["mysql", "sys"];

/// myloader's options that tell how to connect, and what the client calls them. What only MySQL's client or only MariaDB's
/// knows is passed over by the other.
const CONNECTION: [(&str, &str); 13] = [
    ("host", "host"),
    ("port", "port"),
    ("user", "user"),
    ("password", "password"),
    ("socket", "socket"),
    ("protocol", "protocol"),
    ("ca", "ssl-ca"),
    ("capath", "ssl-capath"),
    ("cert", "ssl-cert"),
    ("key", "ssl-key"),
    ("cipher", "ssl-cipher"),
    ("tls-version", "tls-version"),
    ("ssl-mode", "loose-ssl-mode"),
];

/// How myloader's command connects.
pub fn connection(command: &LoaderCommand) -> Connection {
    let text = |name| command.value_of(name).map(|value| value.to_string_lossy().into_owned());
    let mut options: Vec<_> =
        CONNECTION.iter().filter_map(|(ours, client)| Some((*client, Some(text(ours)?)))).collect();
    let is_verified = text("ssl-mode").is_some_and(|mode| mode.to_ascii_uppercase().starts_with("VERIFY"));
    if is_verified {
        options.push(("loose-ssl-verify-server-cert", None));
    }
    if is_verified || command.has("ssl") || text("ssl-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("REQUIRED")) {
        options.push(("loose-ssl", None));
    }
    if command.has("enable-cleartext-plugin") {
        options.push(("loose-enable-cleartext-plugin", None));
    }
    let file = |name: &str| command.value_of(name).map(Into::into);
    Connection { only_file: file("defaults-file"), extra_file: file("defaults-extra-file"), is_alone: false, options }
}

/// Looks at the server, and refuses what would do harm there. `None` where no look is wished.
pub async fn check(args: &LoadArgs, command: &LoaderCommand, plan: &Plan) -> Result<Option<LoadTarget>, Failure> {
    let databases = || plan.wanted.iter().filter_map(|wanted| wanted.of.0.as_deref());
    if let Some(system) = databases().find(|database| SYSTEM.contains(database))
        && !args.system_databases
    {
        let error = anyhow!("the dump holds the server's own database '{system}', with its users and rights");
        let hint = "choose what is yours with --tables, as in `--tables shop.*`; --system-databases loads all of it";
        return Err(Failure::usage(hinted(error, hint)));
    }
    if args.unchecked {
        info!("the server is not looked at before the load");
        return Ok(None);
    }
    let Some(client) = SqlClient::find(connection(command)) else {
        let error = anyhow!("there is neither 'mariadb' nor 'mysql' in PATH to look at the server");
        return Err(Failure::usage(hinted(error, "install one of them; --unchecked loads without a look")));
    };
    let unanswered = |error: anyhow::Error| {
        let error = error.context("cannot look at the server that is to be loaded into");
        Failure::failed(hinted(
            error,
            "it is asked with the connection options of myloader's command; --unchecked loads without a look",
        ))
    };
    let rows = client.ask(QUESTION).await.map_err(unanswered)?;
    let target = rows.first().and_then(|row| LoadTarget::of_row(row));
    let target = target.ok_or_else(|| unanswered(anyhow!("its answer was not understood")))?;
    info!("the target is {target}");
    if target.is_read_only() {
        warn!("the server is read-only: without the right to write all the same, myloader will fail");
    }
    if plan.wanted.iter().any(|wanted| wanted.kind == FileKind::DataText) {
        let seconds = target.net_read_timeout;
        info!(
            "rows are loaded by LOAD DATA: a store that is away for longer than the server's net_read_timeout ({seconds} s) \
             ends the load; SET GLOBAL net_read_timeout = 3600 on the server gives it time"
        );
    }
    refuse_collisions(plan, &target)?;
    let there = client.ask(TABLES).await.map_err(unanswered)?;
    if let Some(into) = &args.into {
        refuse_used(into, &there)?;
        // Its name is text of the user's, and quoted as the server wants it.
        let create = format!("CREATE DATABASE IF NOT EXISTS `{}`", into.replace('`', "``"));
        client.ask(&create).await.map_err(unanswered)?;
        return Ok(Some(target));
    }
    refuse_replacement(args, plan, &target, &there)?;
    Ok(Some(target))
}

/// myloader sets `sql_log_bin = 0` where it is not told otherwise (0.10.1 to 1.0.1).
pub fn say_what_replicas_lack(target: &LoadTarget, command: &LoaderCommand) {
    if target.replicas > 0 && !command.has("enable-binlog") {
        let count = target.replicas;
        warn!(
            "the server has {count} replicas, and myloader loads past the binary log: they have nothing of what was loaded \
             (--enable-binlog after `-- myloader` writes it there)"
        );
    }
}

/// Tables of the dump that would be one table here.
fn refuse_collisions(plan: &Plan, target: &LoadTarget) -> Result<(), Failure> {
    let tables = plan.wanted.iter().filter(|wanted| wanted.kind == FileKind::Schema);
    let both = target.collisions(tables.filter_map(|wanted| Some((wanted.of.0.as_deref()?, wanted.of.1.as_deref()?))));
    if both.is_empty() {
        return Ok(());
    }
    let names = first_few(&both, NAMED_MAX);
    let error =
        anyhow!("the server does not tell names by their case (lower_case_table_names), and the dump does: {names}");
    Err(Failure::usage(hinted(error, "load one of each with --tables, or choose another server")))
}

/// What is loaded beside others must not touch them.
fn refuse_used(into: &str, there: &[Vec<Option<String>>]) -> Result<(), Failure> {
    let is_of_it = |row: &&Vec<Option<String>>| {
        row.first().and_then(Option::as_deref).is_some_and(|name| name.eq_ignore_ascii_case(into))
    };
    match there.iter().filter(is_of_it).count() {
        0 => Ok(()),
        count => {
            let error = anyhow!("the database '{into}' has {count} tables already");
            Err(Failure::usage(hinted(error, "name another one, which need not be there yet")))
        }
    }
}

fn refuse_replacement(
    args: &LoadArgs,
    plan: &Plan,
    target: &LoadTarget,
    there: &[Vec<Option<String>>],
) -> Result<(), Failure> {
    let is_table = |kind| matches!(kind, FileKind::Schema | FileKind::SchemaView | FileKind::SchemaSequence);
    let of_dump = plan.wanted.iter().filter(|wanted| is_table(wanted.kind) || wanted.is_data());
    let of_dump = of_dump.filter_map(|wanted| Some((wanted.of.0.as_deref()?, wanted.of.1.as_deref()?)));
    let there = there.iter().filter_map(|row| match row.as_slice() {
        [Some(database), Some(table)] => Some((database.as_str(), table.as_str())),
        _ => None,
    });
    let both = target.tables_there(of_dump, there);
    if both.is_empty() || args.replace {
        return Ok(());
    }
    let (count, names) = (both.len(), first_few(&both, NAMED_MAX));
    let error = anyhow!("the server has {count} of the dump's tables already: {names}");
    let hint =
        "--replace drops each table that is loaded, on this server; or choose another server, or others with --tables";
    Err(Failure::usage(hinted(error, hint)))
}
