//! Which store a command talks to.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use granary_castore::{Castore, Chain, Error};
use granary_client::Client;
use granary_store::{
    GcOptions, ImportError, ImportObserver, IntegritySource, PathInfo, PathInfoService, Retention,
    StatsSource, StoreStats,
};
use tokio::runtime::{self, Runtime};

use crate::{
    daemon_file, data_dir,
    error::{CliError, Result},
    local_store::{self, EngineSettings, LocalStore},
};

/// What makes a directory a store. One without the other is for the engine to judge.
const STORE_FILES: [&str; 2] = ["store", "packs"];

/// Which store to use. With neither option: the daemon that holds the default data
/// directory, else that directory itself.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TargetArgs {
    /// Talk to the daemon at this URL: http://HOST:PORT, grpc://HOST:PORT or unix:/PATH
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    store: Option<String>,

    /// Open the store in this directory, which no other process may hold
    ///
    /// With neither --store nor this, it is the default directory, through the daemon that
    /// holds it if one does: that of GRANARY_DATA_DIR, else /var/lib/granary for root, else
    /// $XDG_DATA_HOME/granary, else ~/.local/share/granary.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Whether a store that is not there is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is made.
    Create,
    /// That is an error.
    Refuse,
}

/// A store that a command talks to.
pub(crate) struct Target {
    name: String,
    kind: Kind,
}

enum Kind {
    /// This process holds it.
    Local(LocalStore),
    /// A daemon does.
    Remote(Remote),
}

struct Remote {
    castore: Arc<dyn Castore>,
    connection: Connection,
}

/// A connection to a store elsewhere.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// Drives the connection; dropped behind the client.
    _runtime: Runtime,
}

/// Threads that drive the connection to a daemon. Contents are hashed and compressed
/// elsewhere.
const CONNECTION_THREADS: usize = 1;

impl Target {
    /// Opens the store that the arguments choose.
    pub(crate) fn open(args: &TargetArgs, missing: Missing) -> Result<Self> {
        if let Some(url) = &args.store {
            return Self::connect(url);
        }
        if let Some(data_dir) = &args.data_dir {
            return Self::open_dir(data_dir, missing);
        }
        let data_dir = data_dir::default()?;
        let daemon = daemon_file::running(&data_dir);
        match daemon.as_ref().and_then(|daemon| daemon.listen.first()) {
            Some(url) => Self::connect(url),
            None => Self::open_dir(&data_dir, missing),
        }
    }

    fn connect(url: &str) -> Result<Self> {
        let connection = Connection::open(url)?;
        let castore = Arc::new(connection.client.clone());
        let kind = Kind::Remote(Remote { castore, connection });
        Ok(Self { name: format!("the store at {url}"), kind })
    }

    fn open_dir(data_dir: &Path, missing: Missing) -> Result<Self> {
        if missing == Missing::Refuse {
            require(data_dir)?;
        }
        let engine = local_store::open_engine(data_dir, EngineSettings::default())?;
        let kind = Kind::Local(LocalStore::new(engine, None, GcOptions::default()));
        Ok(Self { name: format!("the store in {}", data_dir.display()), kind })
    }

    /// Blobs and directories.
    pub(crate) fn castore(&self) -> &Arc<dyn Castore> {
        match &self.kind {
            Kind::Local(local) => local.store.castore(),
            Kind::Remote(remote) => &remote.castore,
        }
    }

    /// Whether every question goes to another process.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.kind, Kind::Remote(_))
    }

    /// Path infos.
    pub(crate) fn path_infos(&self) -> &dyn PathInfoService {
        match &self.kind {
            Kind::Local(local) => &*local.store,
            Kind::Remote(remote) => &remote.connection.client,
        }
    }

    /// What checks the store.
    pub(crate) fn integrity(&self) -> &dyn IntegritySource {
        match &self.kind {
            Kind::Local(local) => local,
            Kind::Remote(remote) => &remote.connection.client,
        }
    }

    /// What is kept and what goes.
    pub(crate) fn retention(&self) -> &dyn Retention {
        match &self.kind {
            Kind::Local(local) => &local.retention,
            Kind::Remote(remote) => &remote.connection.client,
        }
    }

    /// The numbers of the store.
    pub(crate) fn stats(&self) -> Result<StoreStats> {
        match &self.kind {
            Kind::Local(local) => Ok(local.stats()?),
            Kind::Remote(remote) => Ok(remote.connection.client.stats()?),
        }
    }

    /// Imports the tree at `path`, and returns once it is durable.
    pub(crate) fn import(
        &self,
        path: &Path,
        name: Option<&str>,
        observer: &dyn ImportObserver,
    ) -> Result<PathInfo, ImportError> {
        match &self.kind {
            Kind::Local(local) => local.store.import_path(path, name, observer),
            Kind::Remote(remote) => granary_store::import_path(
                &*remote.castore,
                &remote.connection.client,
                path,
                name,
                observer,
            ),
        }
    }

    /// Ends what was begun, where errors can still be told.
    pub(crate) fn close(self) -> Result<()> {
        match self.kind {
            Kind::Local(local) => Ok(local.engine.close()?),
            Kind::Remote(_) => Ok(()),
        }
    }
}

impl Connection {
    /// Connects to the store at `url`.
    pub(crate) fn open(url: &str) -> Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(CONNECTION_THREADS)
            .enable_all()
            .build()
            .map_err(CliError::system("start the threads of a connection"))?;
        let client =
            Client::connect(url, runtime.handle().clone()).map_err(|error| match error {
                Error::Invalid(_) => CliError::Usage(Chain(&error).to_string()),
                other => other.into(),
            })?;
        Ok(Self { client, _runtime: runtime })
    }
}

/// Fails if there is no store in `data_dir`.
pub(crate) fn require(data_dir: &Path) -> Result<()> {
    for name in STORE_FILES {
        let path = data_dir.join(name);
        let exists = path.try_exists();
        if exists.map_err(CliError::system(format!("look for {}", path.display())))? {
            return Ok(());
        }
    }
    Err(CliError::NoStore { data_dir: data_dir.to_owned() })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
