//! A data folder: its files, its lock, its writer, and who reads slices from it.

use crate::disk::Disk;
use crate::fault::Fault;
use crate::slice_reader::{self, SlicesAsked};
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

/// Where and whose.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The data folder; made if it is not there.
    pub dir: PathBuf,
    /// Whose data it is.
    pub own: NodeId,
    /// Bytes that everything in it may take, unless the person set a budget of their own; no less than
    /// [`BUDGET_BYTES_MIN`](crate::BUDGET_BYTES_MIN).
    pub budget_bytes: u64,
}

/// An open data folder. Clones share one writer.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    disk: Arc<Disk>,
    own: NodeId,
    dir: PathBuf,
    jobs: SyncSender<Job>,
    slices: SyncSender<Option<SlicesAsked>>,
    deliver_failure: Mutex<Box<dyn Fn(Input) + Send>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
}

impl Store {
    /// Opens the folder, makes what is missing, and reads what the node needs. `deliver` gets every
    /// [`Input::Persisted`], [`Input::PersistFailed`], [`Input::Disk`] and [`Input::Read`], on threads of the store.
    ///
    /// # Errors
    /// [`Fault`], a sentence for the person each.
    pub fn open(
        config: StoreConfig,
        deliver: impl Fn(Input) + Send + Clone + 'static,
    ) -> Result<(Store, Restored), Fault> {
        let lock = lock(&config.dir)?;
        let db = config.dir.join("db");
        make_folder(&db)?;
        let disk = Disk::open(&config.dir, config.budget_bytes, |tables| {
            migrate::check(tables, config.own, &db)
        })?;
        let disk = Arc::new(disk);
        let restored = load::restore(&disk, config.own, &db)?;
        let (jobs, job_receiver) = sync_channel(JOBS_MAX);
        let (slices, slices_receiver) = sync_channel(JOBS_MAX);
        let writer = Writer::new(
            disk.clone(),
            config.own,
            restored.usage,
            Box::new(deliver.clone()),
        );
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into());
            thread
                .spawn(work)
                .map_err(|source| Fault::io(&config.dir, source))
        };
        let (read_disk, tell) = (disk.clone(), deliver.clone());
        let read = move || slice_reader::run(&read_disk, &slices_receiver, &tell);
        let threads = vec![
            spawn("disk", Box::new(move || writer.run(&job_receiver)))?,
            spawn("disk-read", Box::new(read))?,
        ];
        let inner = Inner {
            disk,
            own: config.own,
            dir: config.dir,
            jobs,
            slices,
            deliver_failure: Mutex::new(Box::new(deliver)),
            threads: Mutex::new(threads),
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

    /// Hands a read over. One of rows sees every batch handed over before; one of slices those that were said to be stored, and
    /// waits for no commit.
    pub fn read(&self, read: ReadId, query: ReadQuery) {
        let is_taken = match query {
            ReadQuery::Slices { blob, first, count } => {
                let asked = SlicesAsked {
                    read,
                    blob,
                    first,
                    count,
                };
                self.0.slices.send(Some(asked)).is_ok()
            }
            query => self.0.jobs.send(Job::Read(read, query)).is_ok(),
        };
        if !is_taken {
            let result = Err(StorageTrouble::Failed);
            self.fail(Input::Read { read, result });
        }
    }

    /// Keeps to another budget from now on, also after a restart; answered by [`Input::Disk`]. A file that is larger than its share is
    /// written anew once what is in use fits.
    pub fn set_budget(&self, bytes: u64) {
        // A writer that is gone keeps to nothing any more.
        let _ = self.0.jobs.send(Job::Budget(bytes));
    }

    fn fail(&self, input: Input) {
        let deliver = self
            .0
            .deliver_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        deliver(input);
    }

    /// For pages of posts, profiles and blobs, on any thread.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            disk: self.0.disk.clone(),
            own: self.0.own,
            dir: self.0.dir.join("db"),
        }
    }

    /// Bytes that everything takes on the disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.0.disk.file_bytes()
    }

    /// Commits what was handed over, stops the threads and gives the folder free. Later batches fail.
    pub fn close(&self) {
        // A thread that is gone has nothing left to do.
        let _ = self.0.jobs.send(Job::Close);
        let _ = self.0.slices.send(None);
        let threads = std::mem::take(
            &mut *self
                .0
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for thread in threads {
            let _ = thread.join();
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
