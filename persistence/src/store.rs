//! A data folder: the environment, its lock, its writer.

use crate::fault::Fault;
use crate::tables::{Lmdb, TABLES, Tables};
use crate::view::View;
use crate::writer::{Job, Writer};
use crate::{load, migrate};
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{
    BatchId, Durability, Input, ReadId, ReadQuery, Restored, StorageTrouble, Write,
};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Jobs that wait for the writer; past it whoever asks waits.
const JOBS_MAX: usize = 4_096;
/// Readers at once: presentation queries run side by side.
const READERS_MAX: u32 = 64;

/// Where and whose.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The data folder; made if it is not there.
    pub dir: PathBuf,
    /// Whose data it is.
    pub own: NodeId,
    /// Address space for the database, bytes: a ceiling, not memory.
    pub map_bytes: usize,
}

/// An open data folder. Clones share one writer.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    env: Lmdb,
    tables: Tables,
    own: NodeId,
    dir: PathBuf,
    jobs: SyncSender<Job>,
    deliver_failure: Mutex<Box<dyn Fn(Input) + Send>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
}

impl Store {
    /// Opens the folder, makes what is missing, and reads what the node needs. `deliver` gets every
    /// [`Input::Persisted`], [`Input::PersistFailed`] and [`Input::Read`], on the writer's thread.
    ///
    /// # Errors
    /// [`Fault`], a sentence for the person each.
    pub fn open(
        config: StoreConfig,
        deliver: impl Fn(Input) + Send + Clone + 'static,
    ) -> Result<(Store, Restored), Fault> {
        let lock = lock(&config.dir)?;
        let dir = config.dir.join("db");
        make_folder(&dir)?;
        let env = open_env(&dir, config.map_bytes)?;
        let tables = Tables::open(&env).map_err(|error| Fault::lmdb(&dir, error))?;
        migrate::check(&env, &tables, config.own, &dir)?;
        let restored = load::restore(&env, &tables, config.own, &dir)?;
        let (jobs, receiver) = sync_channel(JOBS_MAX);
        let writer = Writer {
            env: env.clone(),
            tables,
            path: dir.join("data.mdb"),
            deliver: Box::new(deliver.clone()),
        };
        let handle = std::thread::Builder::new()
            .name("disk".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|source| Fault::io(&config.dir, source))?;
        let inner = Inner {
            env,
            tables,
            own: config.own,
            dir,
            jobs,
            deliver_failure: Mutex::new(Box::new(deliver)),
            writer: Mutex::new(Some(handle)),
            lock: Mutex::new(Some(lock)),
        };
        Ok((Store(Arc::new(inner)), restored))
    }

    /// Hands a batch to the writer.
    pub fn persist(&self, batch: BatchId, writes: Vec<Write>, durability: Durability) {
        if self
            .0
            .jobs
            .send(Job::Persist(batch, writes, durability))
            .is_err()
        {
            self.fail(Input::PersistFailed(batch, StorageTrouble::Failed));
        }
    }

    /// Hands a read to the writer; it sees every batch handed over before.
    pub fn read(&self, read: ReadId, query: ReadQuery) {
        if self.0.jobs.send(Job::Read(read, query)).is_err() {
            let result = Err(StorageTrouble::Failed);
            self.fail(Input::Read { read, result });
        }
    }

    fn fail(&self, input: Input) {
        let deliver = self
            .0
            .deliver_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        deliver(input);
    }

    /// For pages of posts and profiles, on any thread.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            env: self.0.env.clone(),
            tables: self.0.tables,
            own: self.0.own,
            dir: self.0.dir.clone(),
        }
    }

    /// Bytes the database takes on the disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        std::fs::metadata(self.0.dir.join("data.mdb")).map_or(0, |file| file.len())
    }

    /// Commits what was handed over, stops the writer and gives the folder free. Later batches fail.
    pub fn close(&self) {
        // A writer that is gone has nothing left to commit.
        let _ = self.0.jobs.send(Job::Close);
        let writer = self
            .0
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        self.0
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.0.dir.display())
    }
}

fn make_folder(dir: &Path) -> Result<(), Fault> {
    std::fs::create_dir_all(dir).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
            Fault::ReadOnly { path: dir.into() }
        }
        _ => Fault::io(dir, source),
    })
}

/// Whether a process holds a data folder, as far as can be seen; makes nothing.
#[must_use]
pub fn is_in_use(dir: &Path) -> bool {
    let file = OpenOptions::new().write(true).open(dir.join("lock"));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// One process at a time; the system gives the lock back when the process ends, however it does.
fn lock(dir: &Path) -> Result<File, Fault> {
    make_folder(dir)?;
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| Fault::io(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Fault::Locked { dir: dir.into() }),
        Err(TryLockError::Error(source)) => Err(Fault::io(&path, source)),
    }
}

pub(crate) fn open_env(dir: &Path, map_bytes: usize) -> Result<Lmdb, Fault> {
    open_env_of(dir, map_bytes, TABLES.len() as u32)
}

/// An environment with so many tables, in a folder of its own.
pub(crate) fn open_env_of(dir: &Path, map_bytes: usize, tables: u32) -> Result<Lmdb, Fault> {
    let mut options = heed::EnvOpenOptions::new().read_txn_without_tls();
    options
        .map_size(map_bytes)
        .max_dbs(tables)
        .max_readers(READERS_MAX);
    // SAFETY: the file is used by this process alone, which the lock file ensures, and is never changed but through LMDB.
    #[allow(
        unsafe_code,
        reason = "a memory map is only as safe as its file, which the lock file keeps to this process"
    )]
    let opened = unsafe { options.open(dir) };
    let env = opened.map_err(|error| Fault::lmdb(dir.join("data.mdb"), error))?;
    let path = dir.join("data.mdb");
    fill_up(&env, &path).map_err(|source| Fault::io(&path, source))?;
    // Slots of processes that were killed.
    env.clear_stale_readers()
        .map_err(|error| Fault::lmdb(dir, error))?;
    Ok(env)
}

/// A file that ends before its own last page was cut short, or its last pages were never used. Zeros make sure that whoever
/// looks there sees damage: reading past the end of a mapped file would end the process.
fn fill_up(env: &Lmdb, path: &Path) -> std::io::Result<()> {
    let pages = env.info().last_page_number as u64 + 1;
    let whole = pages * u64::from(env.unnamed_database_stat().page_size);
    if std::fs::metadata(path)?.len() < whole {
        OpenOptions::new().write(true).open(path)?.set_len(whole)?;
    }
    Ok(())
}
