//! `keystead serve`

use std::{
    env,
    net::SocketAddr,
    panic,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use futures::future::select_all;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::timeout,
};

use super::{Failure, OTHER, check, provenance, write_out};
use crate::{
    app::{App, Listeners, Opened, Stop, open_store},
    config::Config,
    key::{Environment, KeyId, Minted, NewKey, Rights},
    store::{AnyStore, Store, StoreUrl, sqlite::SqliteStore},
    telemetry::init_log,
    time::Clock,
};

/// How long closing the embedded store may take: another process may be reading it.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How long the start waits for the reader of stdout.
const SHOW_LIMIT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  keystead serve
  keystead serve --listen 0.0.0.0:50051 --store sqlite:/var/lib/keystead/keystead.db
  keystead serve --config /etc/keystead.toml";

/// Run the service until SIGTERM, SIGINT or SIGQUIT.
///
/// With no configuration it serves on loopback and keeps its keys in
/// ./keystead.db, with the secret ./keystead.secret beside it. A new store
/// of that kind gets a key, which is printed once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    /// Serve gRPC on this address [default: 127.0.0.1:50051].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Serve metrics, probes and status on this address [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl ServeArgs {
    pub(super) fn overrides(&self) -> Vec<(&'static str, String)> {
        let listen = self.listen.clone().map(|address| ("listen.grpc", address));
        let admin = self.admin.clone().map(|address| ("listen.admin", address));
        listen.into_iter().chain(admin).collect()
    }
}

pub(super) async fn run(config: Config) -> Result<ExitCode, Failure> {
    let log = init_log(&config.log)?;
    log_panics();
    keep_memory_private();
    let code = serve(&config).await.unwrap_or_else(|Failure { message, code }| {
        // Whoever waits for the reader of stderr may wait for ever.
        log.line(format_args!("keystead: {message}"));
        code.into()
    });
    log.flush();
    Ok(code)
}

async fn serve(config: &Config) -> Result<ExitCode, Failure> {
    raise_open_files();
    let mut signals = Signals::listen()?;
    let listeners = Listeners::bind(config).await?;
    let opened = open_store(config).await?;
    let embedded = match &opened.store {
        AnyStore::Sqlite(store) => Some(store.clone()),
        AnyStore::Postgres(_) => None,
    };
    let app = App::build(config, listeners, opened, Clock::System).await?;
    let (grpc, admin, control) = (app.grpc_addr()?, app.admin_addr()?, app.control_addr()?);
    let control = control.map(tracing::field::display);
    let forward_auth = app.forward_auth_addr()?.map(tracing::field::display);
    if let Some(first) = first_key(config).await? {
        show(welcome(&first, grpc, &config.store.url), &first.id).await;
    }
    let store = &config.store.url;
    tracing::info!(%grpc, %admin, control, forward_auth, %store, "serving");

    let (stop, told) = tokio::sync::oneshot::channel();
    let second_signal = async {
        // The receiver lives as long as the app runs.
        let _ = stop.send(signals.next().await);
        signals.next().await;
    };
    // Whoever tells nothing any more has gone, and so do we.
    let first_signal = async { told.await.unwrap_or(Stop::AtOnce) };
    tokio::select! {
        () = app.run(first_signal) => {
            close(embedded).await;
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = second_signal => {
            tracing::warn!("ended at once by a second signal");
            Ok(OTHER.into())
        }
    }
}

/// Prints the first key. Nobody may be there to read it, for which no check waits.
async fn show(welcome: String, key: &KeyId) {
    let written = timeout(SHOW_LIMIT, spawn_blocking(|| write_out(welcome))).await;
    let why = match written {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) | Err(_) => "nobody reads it".to_owned(),
    };
    tracing::warn!(
        %key,
        "the first key could not be printed to stdout ({why}): revoke it, and make one with \
         `keystead keys create`"
    );
}

/// Closes the embedded store, if that is what is served, so that its file holds all.
async fn close(embedded: Option<SqliteStore>) {
    let Some(store) = embedded else { return };
    let why = match timeout(CLOSE_LIMIT, store.close()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(late) => late.to_string(),
    };
    tracing::warn!(
        why,
        "the embedded store was not closed: what is beside its file, `-wal`, is part of it"
    );
}

/// Raises the soft limit of open files to the hard limit: a login has 1,024 as a rule,
/// which idle connections would fill, and then neither a probe nor the store finds
/// one. The soft limit is that low for the sake of `select`, which is not used here.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let limit =
        |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let (found, hard) = (limit(current), limit(maximum));
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::info!(found, limit = hard, "open files limit raised to the hard limit"),
        Err(error) => {
            tracing::warn!(%error, limit = found, hard, "cannot raise the limit of open files");
        }
    }
}

/// A panic is a bug: it goes to the log like everything else that an operator
/// must act on, and never to a caller.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or_default();
        tracing::error!(place, message, "a bug: please report it");
    }));
}

/// Presented keys and the secrets are in memory: no core dump may hold them, and
/// nobody but root may look at them.
fn keep_memory_private() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a core dump of this process would hold keys and secrets");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// They would end the process without a drain. What they ask of other programs
    /// is not needed here: nothing is to be read anew, and no file of the log to be
    /// opened anew. A file that has reached its limit fails to be written instead.
    ignored: Vec<(&'static str, Signal)>,
}

/// See [`Signals::ignored`].
const IGNORED: [(&str, rustix::process::Signal); 9] = {
    use rustix::process::Signal as Number;
    [
        ("SIGHUP", Number::HUP),
        ("SIGUSR1", Number::USR1),
        ("SIGUSR2", Number::USR2),
        ("SIGALRM", Number::ALARM),
        ("SIGVTALRM", Number::VTALARM),
        ("SIGPROF", Number::PROF),
        ("SIGIO", Number::IO),
        ("SIGPWR", Number::POWER),
        ("SIGXFSZ", Number::XFSZ),
    ]
};

impl Signals {
    /// SIGPIPE is ignored already: the standard library sees to it.
    fn listen() -> Result<Self, Failure> {
        let caught = |(name, number): (_, rustix::process::Signal)| {
            signal(SignalKind::from_raw(number.as_raw())).map(|signal| (name, signal))
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            ignored: IGNORED.into_iter().map(caught).collect::<Result<_, _>>()?,
        })
    }

    /// The next that ends the process.
    async fn next(&mut self) -> Stop {
        let Self { terminate, interrupt, quit, ignored } = self;
        loop {
            let ignored = ignored.iter_mut().map(|(name, signal)| {
                let name = *name;
                Box::pin(async move {
                    signal.recv().await;
                    name
                })
            });
            let (signal, stop) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", Stop::AfterDelay),
                _ = interrupt.recv() => ("SIGINT", Stop::AtOnce),
                _ = quit.recv() => ("SIGQUIT", Stop::AtOnce),
                (signal, ..) = select_all(ignored) => {
                    tracing::info!(signal, "signal ignored; SIGTERM stops the service");
                    continue;
                }
            };
            tracing::info!("stopping on {signal}");
            return stop;
        }
    }
}

/// Mints the first key of an embedded store that holds none, and has lost none: a
/// new key would speak for the store. A secret that was brought along may have keys
/// elsewhere. A server is left alone: several instances would each mint one, and
/// what they print goes to a log.
async fn first_key(config: &Config) -> Result<Option<Minted>, Failure> {
    let StoreUrl::Sqlite { .. } = config.store.url else {
        return Ok(None);
    };
    if config.keys.secret_file.is_some() {
        return Ok(None);
    }
    let Opened { store, ring, .. } = open_store(config).await?;
    if store.history().await?.is_some_and(|history| history.any || history.expected > 0) {
        return Ok(None);
    }
    let minted = ring.mint(Environment::Live)?;
    let rights = Rights {
        principal: "first".to_owned(),
        name: "made by `keystead serve` for an empty store".to_owned(),
        ..Rights::default()
    };
    let by = provenance::of("serve".to_owned());
    store.insert(&[NewKey::minted(&minted, rights)], &by).await?;
    Ok(Some(minted))
}

fn welcome(Minted { id, key, .. }: &Minted, grpc: SocketAddr, store: &StoreUrl) -> String {
    let program = program();
    let program = shell_word(&program.to_string_lossy());
    let server = check::server_flag(grpc);
    let store = store_flag(store);
    let key = key.expose();
    format!(
        "The store held no key, so one was made. It is shown this once:

    {key}

Check it from another terminal:

    {program} check {key}{server}

Change a letter of it to see a forged key refused; then revoke it, and check again:

    {program} keys revoke {id}{store}

"
    )
}

/// ` --store URL` for a store that is not the default, however it was named,
/// else nothing: all that a command on keys needs to find it.
fn store_flag(store: &StoreUrl) -> String {
    let store = store.to_string();
    if store == StoreUrl::default().to_string() {
        String::new()
    } else {
        format!(" --store {}", shell_word(&store))
    }
}

/// A text as one word for a shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// How this program can be called from the folder that it was started in.
fn program() -> PathBuf {
    let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("keystead"));
    let here = env::current_dir().unwrap_or_default();
    let below = program.strip_prefix(&here).map(Path::to_owned);
    below.unwrap_or(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyRing, Prefix, Secret};

    fn revoke_command(store: &str) -> String {
        let ring = KeyRing::parse(&Secret::generate().unwrap(), Prefix::default(), true).unwrap();
        let minted = ring.mint(Environment::Live).unwrap();
        let grpc = Config::default().listen.grpc;
        let text = welcome(&minted, grpc, &store.parse().unwrap());
        let (_, command) = text.split_once(" keys revoke ").unwrap();
        command.trim().replace(&minted.id.to_string(), "ID")
    }

    #[test]
    fn the_commands_that_are_shown_find_the_same_store() {
        assert_eq!(revoke_command("sqlite:keystead.db"), "ID");
        assert_eq!(revoke_command("sqlite:/var/lib/k.db"), "ID --store sqlite:/var/lib/k.db");
        assert_eq!(revoke_command("sqlite:my keys.db"), "ID --store 'sqlite:my keys.db'");
        assert_eq!(revoke_command("sqlite:$(a)'b.db"), r"ID --store 'sqlite:$(a)'\''b.db'");
    }
}
