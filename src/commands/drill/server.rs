//! Where a dump is drilled: a server that is started for it, or a scratch server of the operator's.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::anyhow;
use tracing::{debug, info, warn};

use super::super::load::stage::Stage;
use super::super::load::target::connection;
use super::expected::Read;
use crate::aside::aside;
use crate::cli::DrillArgs;
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::load_target::{LoadTarget, QUESTION};
use crate::model::loader_command::LoaderCommand;
use crate::model::schema_programs::Account;
use crate::model::units::{ByteSize, first_few};
use crate::private_server::{PrivateServer, ServerProgram};
use crate::retrieval::NAMED_MAX;
use crate::retrieval::plan::Plan;
use crate::sql_client::SqlClient;

/// The most connections that a myloader of ours loads by.
const THREADS_MAX: usize = 8;
/// What a server's own files take before anything is loaded: tables, logs, what is put aside.
const SERVER_TAKES: u64 = 512 << 20;
/// So much of the disk is left to others; and how often it is looked at.
const LEFT_FREE: u64 = 256 << 20;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many bytes of tables a byte of a dump's plain text becomes, and a byte of a compressed file: with indexes, generously.
const PLAIN_BECOMES: f64 = 2.0;
const COMPRESSED_BECOMES: f64 = 10.0;

/// What to do about it.
const TIGHT: &str = "--sample SIZE takes as many tables as fit; TMPDIR names another place";

/// Where, and how it is asked.
pub struct Server {
    place: Place,
    client: SqlClient,
    /// What starts myloader.
    command: LoaderCommand,
    /// The accounts that were made.
    made_accounts: Vec<Account>,
    /// The databases that were not there before.
    databases: BTreeSet<String>,
    shown: String,
    /// Whether names of tables are compared without their case.
    pub ignores_case: bool,
}

enum Place {
    /// Ours.
    Private(Box<PrivateServer>),
    /// Somebody else's; whether anything was made there yet.
    Scratch { is_used: bool },
}

fn no_client() -> anyhow::Error {
    let error = anyhow!("there is neither 'mariadb' nor 'mysql' in PATH to ask the server");
    hinted(error, "install one of them")
}

impl Server {
    /// What was asked for. Nothing runs yet.
    pub async fn choose(args: &DrillArgs) -> Result<Self, Failure> {
        let usage = |error: crate::model::usage_error::UsageError| {
            let hint = error.hint().to_owned();
            Failure::usage(hinted(anyhow!("{error}"), hint))
        };
        let own = [OsString::from("myloader")];
        let typed = if args.command.is_empty() { &own[..] } else { &args.command };
        let command = LoaderCommand::parse(typed).map_err(usage)?;
        if command.names_server() {
            if args.server.is_some() {
                let error = anyhow!("myloader's command names a server, and --server another one");
                return Err(Failure::usage(hinted(error, "leave --server away, or myloader's connection options")));
            }
            let client = SqlClient::find(connection(&command)).ok_or_else(|| Failure::usage(no_client()))?;
            return Ok(Self::new(Place::Scratch { is_used: false }, client, command));
        }
        let program = ServerProgram::find(args.server.as_deref()).await.map_err(Failure::usage)?;
        let server = aside(move || PrivateServer::place(program)).await.map_err(Failure::failed)?;
        let client = server.client().ok_or_else(|| Failure::usage(no_client()))?;
        Ok(Self::new(Place::Private(Box::new(server)), client, command))
    }

    fn new(place: Place, client: SqlClient, command: LoaderCommand) -> Self {
        Self {
            place,
            client,
            command,
            made_accounts: Vec::new(),
            databases: BTreeSet::new(),
            shown: String::new(),
            ignores_case: false,
        }
    }

    /// Refuses what cannot end well, before anything is made.
    pub async fn check(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.databases = plan.wanted.iter().filter_map(|wanted| wanted.of.0.clone()).collect();
        match &self.place {
            Place::Private(server) => check_space(server, plan).await,
            Place::Scratch { .. } => self.check_scratch().await,
        }
    }

    /// A server that has any of it already is hardly a scratch server, and what is there could not be told from what is
    /// loaded.
    async fn check_scratch(&mut self) -> Result<(), Failure> {
        let target = self.target().await?;
        info!("the target is {target}");
        let there = self.client.ask("SHOW DATABASES").await.map_err(unanswered)?;
        let there: BTreeSet<String> = there.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        let is_there = |name: &&String| match self.ignores_case {
            true => there.iter().any(|other| other.to_lowercase() == name.to_lowercase()),
            false => there.contains(*name),
        };
        let both: Vec<String> = self.databases.iter().filter(is_there).map(|name| format!("'{name}'")).collect();
        if !both.is_empty() {
            let names = first_few(&both, NAMED_MAX);
            let error = anyhow!("the server has {} of the dump's databases already: {names}", both.len());
            let hint = "a drill removes what it loaded, so it needs a server without them; without a server in myloader's \
                        command it starts one of its own";
            return Err(Failure::usage(hinted(error, hint)));
        }
        let events = self.client.ask("SELECT @@global.event_scheduler").await.map_err(unanswered)?;
        if events.first().and_then(|row| row.first()?.as_deref()) == Some("ON") {
            let error = anyhow!("the server's event scheduler is on: the dump's events would run there");
            return Err(Failure::usage(hinted(error, "SET GLOBAL event_scheduler = OFF on the scratch server")));
        }
        Ok(())
    }

    async fn target(&mut self) -> Result<LoadTarget, Failure> {
        let rows = self.client.ask(QUESTION).await.map_err(unanswered)?;
        let target = rows.first().and_then(|row| LoadTarget::of_row(row));
        let target = target.ok_or_else(|| unanswered(anyhow!("its answer was not understood")))?;
        self.shown = target.to_string();
        self.ignores_case = target.ignores_case();
        Ok(target)
    }

    /// Starts it, if it is ours.
    pub async fn start(&mut self) -> Result<(), Failure> {
        let Place::Private(server) = &mut self.place else { return Ok(()) };
        server.start(&self.client).await.map_err(Failure::failed)?;
        self.shown = server.software().to_string();
        Ok(())
    }

    /// Definers that are missing, as locked accounts: views and programs could be made without them, and not be used.
    pub async fn make_definers(&mut self, read: &Read) -> Result<(), Failure> {
        if let (Place::Private(server), Some(newest)) = (&self.place, read.newest_version)
            && let Some(why) = server.software().why_unfit(newest)
        {
            warn!("the server is {}, and {why}: it may pass over things; --server FILE names another", self.shown);
        }
        if let Place::Scratch { is_used } = &mut self.place {
            *is_used = true;
        }
        let there = match self.client.ask("SELECT user, host FROM mysql.user").await {
            Ok(there) => there,
            Err(error) if matches!(self.place, Place::Scratch { .. }) => {
                debug!("cannot ask for accounts: {error:#}");
                warn!(
                    "the server does not tell its accounts: definers are not made, and what they define may look broken"
                );
                return Ok(());
            }
            Err(error) => return Err(unanswered(error)),
        };
        let there: BTreeSet<Account> = there
            .into_iter()
            .filter_map(|row| Some((row.first()?.clone().unwrap_or_default(), row.get(1)?.clone().unwrap_or_default())))
            .collect();
        for account in read.definers.difference(&there) {
            self.make_account(account).await?;
        }
        if !self.made_accounts.is_empty() {
            let names: Vec<_> = self.made_accounts.iter().map(|(user, host)| format!("'{user}'@'{host}'")).collect();
            info!("made {} definers, locked: {}", names.len(), first_few(&names, NAMED_MAX));
        }
        Ok(())
    }

    async fn make_account(&mut self, account: &Account) -> Result<(), Failure> {
        let name = account_name(account);
        let locked = match account.1.is_empty() {
            true => self.client.ask(&format!("CREATE ROLE {name}")).await,
            false => self.client.ask(&format!("CREATE USER {name} ACCOUNT LOCK")).await,
        };
        if let Err(error) = locked {
            // It is made all the same as far as the server lets us: what needs it is told by its own check.
            debug!("cannot make {name}: {error:#}");
            warn!("the definer {name} cannot be made: what it defines is checked without it");
            return Ok(());
        }
        self.made_accounts.push(account.clone());
        let grants: String =
            self.databases.iter().map(|database| format!("GRANT ALL ON {}.* TO {name};", quoted(database))).collect();
        if let Err(error) = self.client.ask(&grants).await {
            debug!("cannot grant: {error:#}");
            warn!("the definer {name} cannot be given rights here: what it defines may look broken");
        }
        Ok(())
    }

    /// myloader's command line.
    pub fn line(&self, stage: &Stage) -> Vec<OsString> {
        let command = match &self.place {
            Place::Scratch { .. } => self.command.clone(),
            Place::Private(server) => {
                let mut options: Vec<OsString> = vec!["--socket".into(), server.socket().into()];
                options.extend(["--user", "root", "--defaults-file"].map(OsString::from));
                options.push(server.no_options().into());
                if !self.command.has("threads") {
                    let cores = std::thread::available_parallelism().map_or(2, usize::from);
                    options.extend(["--threads".into(), OsString::from(cores.clamp(2, THREADS_MAX).to_string())]);
                }
                self.command.with(options)
            }
        };
        command.complete(&stage.dump(), false, None)
    }

    /// Waits until the disk gets tight under a server of ours: others need it, too.
    pub async fn wait_until_tight(&self) -> Failure {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let free = match &self.place {
                Place::Private(server) => server.free_space().await,
                Place::Scratch { .. } => std::future::pending().await,
            };
            match free {
                Ok(free) if free >= LEFT_FREE => {}
                Ok(free) => {
                    let (free, place) = (ByteSize(free).human(), std::env::temp_dir());
                    let error = anyhow!("only {free} are free in '{}': the drill was ended", place.display());
                    return Failure::failed(hinted(error, TIGHT));
                }
                Err(error) => return Failure::failed(error),
            }
        }
    }

    /// A client for it.
    pub fn client(&self) -> &SqlClient {
        &self.client
    }

    /// As it is told.
    pub fn name(&self) -> String {
        self.shown.clone()
    }

    /// Why it is not there any more, if that is its own doing.
    pub fn why_ended(&self) -> Option<anyhow::Error> {
        match &self.place {
            Place::Private(server) => server.why_ended(),
            Place::Scratch { .. } => None,
        }
    }

    /// Takes away all that the drill made.
    pub async fn end(self) -> anyhow::Result<()> {
        let Self { place, client, made_accounts, databases, .. } = self;
        match place {
            Place::Private(server) => server.end().await,
            Place::Scratch { is_used: false } => Ok(()),
            Place::Scratch { is_used: true } => {
                let databases = databases.iter().map(|name| format!("DROP DATABASE IF EXISTS {};", quoted(name)));
                let accounts = made_accounts.iter().map(|account| {
                    let what = if account.1.is_empty() { "ROLE" } else { "USER" };
                    format!("DROP {what} IF EXISTS {};", account_name(account))
                });
                for statement in databases.chain(accounts) {
                    client.ask_within(super::look::LONG, &statement).await.map_err(|error| {
                        let error = error.context(format!("cannot take away what the drill made: {statement}"));
                        hinted(error, "run that statement on the scratch server")
                    })?;
                }
                Ok(())
            }
        }
    }
}

async fn check_space(server: &PrivateServer, plan: &Plan) -> Result<(), Failure> {
    let is_compressed = |name: &str| !name.ends_with(".sql") && !name.ends_with(".dat");
    let (mut dump, mut needed) = (0, SERVER_TAKES as f64);
    for wanted in plan.wanted.iter().filter(|wanted| wanted.is_data()) {
        let size = wanted.listed.size;
        dump += size;
        let becomes = if is_compressed(wanted.listed.name.as_str()) { COMPRESSED_BECOMES } else { PLAIN_BECOMES };
        needed += size as f64 * becomes;
    }
    let free = server.free_space().await.map_err(Failure::failed)?;
    let needed = ByteSize(needed as u64 + LEFT_FREE);
    if needed.0 <= free {
        return Ok(());
    }
    let place = std::env::temp_dir();
    let error = anyhow!(
        "'{}' has {} free, and a server with this dump of {} may need {}",
        place.display(),
        ByteSize(free).human(),
        ByteSize(dump).human(),
        needed.human()
    );
    Err(Failure::usage(hinted(error, TIGHT)))
}

fn unanswered(error: anyhow::Error) -> Failure {
    Failure::failed(error.context("cannot ask the server that is drilled on"))
}

/// A name as statements have it.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn account_name(account: &Account) -> String {
    match account.1.is_empty() {
        true => quoted(&account.0),
        false => format!("{}@{}", quoted(&account.0), quoted(&account.1)),
    }
}
