//! `granary daemon`

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use granary_server::{
    daemon::{self, ListenAddress, Listener, ServeOptions},
    grpc::{self, GrpcServices},
    http::{self, HttpOptions},
};
use granary_store::GcOptions;
use serde::Serialize;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    config::{COMPRESSION_LEVELS, Config},
    daemon_file::{DaemonFile, DaemonInfo},
    data_dir,
    error::{CliError, Result},
    local_store::{self, EngineSettings, LocalStore},
    log, output, quantity,
    scrub::{self, Scrub},
    signing_key,
    upkeep::{self, Upkeep},
};

/// What the daemon logs unless it is told otherwise. What is below the index has more
/// to say than anybody wants to know.
const DEFAULT_LOG: &str = "info";

/// Serve the store on one port: gRPC and the HTTP binary cache
///
/// Prints where it listens, where the data lies and how to use it from Nix once it takes
/// connections. SIGTERM and SIGINT stop it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object, on one line, when it takes connections
    #[arg(long)]
    json: bool,

    /// Read options from this TOML file; its keys are the options below, without the dashes
    /// before them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Keep everything in this directory, which is made if it is not there
    ///
    /// The default is that of GRANARY_DATA_DIR, else /var/lib/granary for root, else
    /// $XDG_DATA_HOME/granary, else ~/.local/share/granary.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Listen on IP:PORT, HOST:PORT, unix:/PATH, or the sockets of systemd; can be repeated
    ///
    /// The default is the sockets that systemd passes, else port 8000 of 127.0.0.1 and ::1.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<ListenAddress>,

    /// Sign with the key in this file
    ///
    /// The default is signing-key in the data directory, which is made if it is not there.
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,

    /// Let everybody write who can connect, not only who is on this machine
    #[arg(long)]
    allow_anonymous_writes: bool,

    /// Tell Nix this priority, 30 by default; caches with a lower one are asked first
    #[arg(long, value_name = "NUMBER")]
    priority: Option<u32>,

    /// Send frames of zstd as they are stored to clients of this name too, beside Nix and curl
    ///
    /// The name is how a word of their User-Agent begins, as in Nix/. They must read every frame of
    /// a body; some decoders stop behind the first. Others get one frame, which costs more time.
    #[arg(long, value_name = "NAME")]
    multi_frame_client: Vec<String>,

    /// Compress what is stored from now on at this level of zstd, 1 to 19
    ///
    /// The default lies between 1 and 3, in time as in size.
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(COMPRESSION_LEVELS))]
    compression_level: Option<i32>,

    /// Collect garbage by itself so often, as in 1d: a number and s, m, h, d or w
    ///
    /// The default is never.
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    gc_interval: Option<Duration>,

    /// A collection keeps what was used or uploaded within this time, 90d by default
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    keep_for: Option<Duration>,

    /// A collection lets the least recently used paths go until all packs have at most this size,
    /// as in 500G
    ///
    /// The default is no limit.
    #[arg(long, value_name = "SIZE", value_parser = quantity::size_limit)]
    max_size: Option<u64>,

    /// What a client puts over gRPC is kept for this time, 24h by default; until then a path info
    /// or a pin must lead to it
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    lease: Option<Duration>,

    /// Read everything that is stored, slowly, to find damage: so many MiB a second, 4 by default,
    /// and at most once a day; 0 does not
    #[arg(long, value_name = "MIB")]
    scrub_rate: Option<u64>,

    /// Log what this lets through: a level (error, warn, info, debug, trace), or levels for
    /// parts, as in info,granary_engine=debug
    ///
    /// The default is that of GRANARY_LOG, else info, but warn for the index.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,

    /// Log in this format
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<log::Format>,
}

/// The options once flags, environment, file and defaults are put together.
struct Settings {
    data_dir: PathBuf,
    listen: Vec<ListenAddress>,
    signing_key: Option<PathBuf>,
    allow_anonymous_writes: bool,
    priority: Option<u32>,
    multi_frame_clients: Vec<String>,
    compression_level: Option<i32>,
    scrub_rate: u64,
    gc_interval: Option<Duration>,
    gc: GcOptions,
    lease: Option<Duration>,
    log: String,
    log_format: log::Format,
    json: bool,
}

impl Settings {
    fn new(args: Args) -> Result<Self> {
        let config = match &args.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        let data_dir = match args.data_dir {
            Some(data_dir) => data_dir,
            None => data_dir::default_or(config.data_dir)?,
        };
        let listen = if args.listen.is_empty() { config.listen } else { args.listen };
        Ok(Self {
            // Its place is told to others, whose working directory is another.
            data_dir: std::path::absolute(&data_dir)
                .map_err(CliError::system(format!("find {}", data_dir.display())))?,
            listen,
            signing_key: args.signing_key.or(config.signing_key),
            allow_anonymous_writes: args.allow_anonymous_writes
                || config.allow_anonymous_writes.unwrap_or_default(),
            priority: args.priority.or(config.priority),
            multi_frame_clients: [args.multi_frame_client, config.multi_frame_client].concat(),
            compression_level: args.compression_level.or(config.compression_level),
            scrub_rate: args.scrub_rate.or(config.scrub_rate).unwrap_or(scrub::DEFAULT_MIB_PER_S),
            gc_interval: args
                .gc_interval
                .or(config.gc_interval)
                .filter(|interval| !interval.is_zero()),
            gc: GcOptions {
                keep_for: args.keep_for.or(config.keep_for),
                max_stored_bytes: args.max_size.or(config.max_size),
                ..GcOptions::default()
            },
            lease: args.lease.or(config.lease),
            log: args
                .log
                .or_else(log::from_environment)
                .or(config.log)
                .unwrap_or_else(|| DEFAULT_LOG.to_owned()),
            log_format: args.log_format.or(config.log_format).unwrap_or_default(),
            json: args.json,
        })
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let settings = Settings::new(args)?;
    log::start(&settings.log, settings.log_format)?;
    // What the user gave is looked at before anything is made.
    let given_key = settings.signing_key.as_deref().map(signing_key::read).transpose()?;
    let engine_settings = EngineSettings {
        compression_level: settings.compression_level,
        lease: settings.lease,
        rebuild_index: false,
    };
    let engine = local_store::open_engine(&settings.data_dir, engine_settings)?;
    let signing_key = match given_key {
        Some(key) => key,
        None => signing_key::read_or_create(&settings.data_dir)?,
    };
    let local = LocalStore::new(engine, Some(signing_key), settings.gc);
    let upkeep = Upkeep::start(local.clone(), settings.gc_interval)?;
    let scrub = Scrub::start(local.engine.clone(), &settings.data_dir, settings.scrub_rate)?;
    // It accepts connections, and waits for signals. Connections are served on threads of their own.
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::system("start the daemon"))?;
    let served = runtime.block_on(serve(&settings, &local));
    drop(runtime);
    drop(scrub);
    drop(upkeep);
    upkeep::flush(&local);
    // IMPORTANT: behind everything that writes, and also if serving failed.
    let closed = local.engine.close();
    served?;
    Ok(closed?)
}

async fn serve(settings: &Settings, local: &LocalStore) -> Result<()> {
    let mut signals = Signals::new()?;
    let listeners = daemon::bind(&settings.listen).await?;
    let urls: Vec<_> = listeners.iter().map(url).collect();
    let bound: Vec<_> = listeners.iter().map(bound_url).collect();
    let info = DaemonInfo { pid: std::process::id(), listen: urls };
    let file = DaemonFile::write_or_warn(&settings.data_dir, &info);
    let router = router(settings, local).await;
    let options = ServeOptions {
        allow_anonymous_writes: settings.allow_anonymous_writes,
        ..ServeOptions::default()
    };
    let server = daemon::Server::start(listeners, router, options)?;
    announce(settings, local, &info, &bound)?;
    let shutdown = async move {
        let name = signals.next().await;
        tracing::info!("stopping after {name}");
    };
    server.serve(shutdown).await;
    drop(file);
    Ok(())
}

async fn router(settings: &Settings, local: &LocalStore) -> Router {
    let mut options = HttpOptions::default();
    if let Some(priority) = settings.priority {
        options.priority = priority;
    }
    options.multi_frame_clients.extend_from_slice(&settings.multi_frame_clients);
    let services = GrpcServices {
        castore: Arc::clone(local.store.castore()),
        path_infos: local.store.clone(),
        stats: Arc::new(local.clone()),
        integrity: Some(Arc::new(local.clone())),
        retention: Some(Arc::new(local.retention.clone())),
    };
    grpc::router(services)
        .await
        .merge(http::router(Arc::clone(&local.store), options))
        .fallback(grpc::fallback)
}

/// What the daemon says when it is ready.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Announcement<'a> {
    version: &'static str,
    pid: u32,
    listen: &'a [String],
    data_dir: String,
    /// For Nix; there is none if the daemon listens on Unix sockets only.
    substituter: Option<&'a String>,
    trusted_public_key: Option<String>,
}

impl Announcement<'_> {
    /// For people, and for scripts that wait for the last line. Written at once.
    fn print(&self) -> Result<()> {
        let mut lines = vec![format!("granary {}", self.version)];
        lines.extend(self.listen.iter().map(|url| format!("listening on {url}")));
        lines.push(format!("data directory {}", self.data_dir));
        if let (Some(url), Some(key)) = (self.substituter, &self.trusted_public_key) {
            lines.extend([
                "to use it, put these lines into nix.conf:".to_owned(),
                format!("extra-substituters = {url}"),
                format!("extra-trusted-public-keys = {key}"),
            ]);
        }
        output::line(lines.join("\n"))
    }
}

fn announce(
    settings: &Settings,
    local: &LocalStore,
    info: &DaemonInfo,
    bound: &[String],
) -> Result<()> {
    let announcement = Announcement {
        version: env!("CARGO_PKG_VERSION"),
        pid: info.pid,
        listen: bound,
        data_dir: settings.data_dir.to_string_lossy().into_owned(),
        substituter: info.listen.iter().find(|url| url.starts_with("http")),
        trusted_public_key: local.store.public_key().map(|key| key.to_string()),
    };
    if settings.json { output::json_line(&announcement) } else { announcement.print() }
}

/// Where a listener listens, as it is: whoever starts it must see what is exposed.
fn bound_url(listener: &Listener) -> String {
    match listener.address() {
        ListenAddress::Ip(address) => format!("http://{address}"),
        other => other.to_string(),
    }
}

/// Where clients on this machine reach a listener.
fn url(listener: &Listener) -> String {
    match listener.address() {
        ListenAddress::Ip(address) => {
            let mut address = *address;
            if address.ip().is_unspecified() {
                address.set_ip(match address {
                    std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                    std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                });
            }
            format!("http://{address}")
        }
        other => other.to_string(),
    }
}

/// What stops the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen_for = |kind| signal(kind).map_err(CliError::system("wait for signals"));
        Ok(Self {
            terminate: listen_for(SignalKind::terminate())?,
            interrupt: listen_for(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_help() {
        assert_eq!(HttpOptions::default().priority, 30);
        assert_eq!(scrub::DEFAULT_MIB_PER_S, 4);
        assert_eq!(quantity::duration("90d"), Ok(GcOptions::DEFAULT_KEEP_FOR));
        assert_eq!(quantity::duration("24h"), Ok(granary_engine::DEFAULT_LEASE));
        assert_eq!(quantity::permille("8"), Ok(GcOptions::DEFAULT_MAX_UNUSED_PERMILLE));
    }
}
