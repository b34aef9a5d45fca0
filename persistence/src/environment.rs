//! One LMDB environment in a folder of its own, behind a gate: it can be made larger, or written anew and smaller, while its
//! readers wait at the gate and nobody else does.
//!
//! What always holds: the file never passes its map; at whatever instant the process ends, the folder holds one whole file under
//! the name that counts. A copy that was not finished is removed at the next start.

use crate::fault::{Fault, trouble_of, trouble_of_io};
use crate::tables::Lmdb;
use distsoc_engine::io::StorageTrouble;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Readers at once: presentation queries run side by side.
const READERS_MAX: u32 = 64;
/// Maps are a multiple of this: whole pages on every system.
const MAP_STEP_BYTES: u64 = 64 * 1024;
/// By how much a file must be able to grow for a disk not to count as full.
const GROWTH_BYTES: usize = 128 * 1024;
/// The file that counts.
const FILE: &str = "data.mdb";
/// A copy that is being made.
const COPY: &str = "data.mdb.new";

/// What a map of so many bytes is in whole steps.
pub(crate) fn whole_steps(bytes: u64) -> u64 {
    bytes / MAP_STEP_BYTES * MAP_STEP_BYTES
}

/// An environment and the handles of its tables.
pub(crate) struct Environment<H> {
    dir: PathBuf,
    tables: u32,
    handles: fn(&Lmdb) -> heed::Result<H>,
    gate: RwLock<Option<Open<H>>>,
}

struct Open<H> {
    env: Lmdb,
    handles: H,
    map_bytes: u64,
}

/// An environment that stays as it is until this is dropped. A thread that has one asks for no second.
pub(crate) struct Opened<'a, H>(RwLockReadGuard<'a, Option<Open<H>>>);

impl<H: Copy> Opened<'_, H> {
    fn open(&self) -> &Open<H> {
        self.0.as_ref().expect("it was seen when this was made")
    }

    pub(crate) fn env(&self) -> &Lmdb {
        &self.open().env
    }

    pub(crate) fn handles(&self) -> H {
        self.open().handles
    }
}

impl<H: Copy> Environment<H> {
    /// Opens it, made if it is not there; a file that is larger than the map is mapped whole.
    pub(crate) fn open(
        dir: &Path,
        map_bytes: u64,
        tables: u32,
        handles: fn(&Lmdb) -> heed::Result<H>,
    ) -> Result<Self, Fault> {
        let copy = dir.join(COPY);
        match std::fs::remove_file(&copy) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Fault::io(copy, source));
            }
            _ => {}
        }
        let this = Self {
            dir: dir.into(),
            tables,
            handles,
            gate: RwLock::new(None),
        };
        let open = this.open_file(map_bytes)?;
        *this.gate.write().unwrap_or_else(PoisonError::into_inner) = Some(open);
        Ok(this)
    }

    fn open_file(&self, map_bytes: u64) -> Result<Open<H>, Fault> {
        let map_bytes = whole_steps(map_bytes).max(MAP_STEP_BYTES);
        let env = open_env(&self.dir, map_bytes, self.tables)?;
        let handles = (self.handles)(&env).map_err(|error| Fault::lmdb(self.path(), error))?;
        Ok(Open {
            env,
            handles,
            map_bytes,
        })
    }

    /// The file.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Bytes of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        std::fs::metadata(self.path()).map_or(0, |file| file.len())
    }

    /// Bytes that the file may have.
    pub(crate) fn map_bytes(&self) -> u64 {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        gate.as_ref().map_or(0, |open| open.map_bytes)
    }

    /// For transactions.
    pub(crate) fn get(&self) -> Result<Opened<'_, H>, heed::Error> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        match gate.is_some() {
            true => Ok(Opened(gate)),
            // Only where it could not be opened again after it was written anew.
            false => Err(std::io::Error::other("the database is closed").into()),
        }
    }

    /// Lets the file become as large as this; where it is larger already, it grows no more.
    pub(crate) fn resize(&self, map_bytes: u64) -> heed::Result<()> {
        let map_bytes = whole_steps(map_bytes).max(MAP_STEP_BYTES);
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = gate.as_mut() else {
            return Err(std::io::Error::other("the database is closed").into());
        };
        if open.map_bytes != map_bytes {
            // SAFETY: every transaction of this process holds the gate, which is ours alone now.
            #[allow(
                unsafe_code,
                reason = "the map may move only where nobody looks at it, which the gate ensures"
            )]
            unsafe {
                open.env.resize(map_bytes as usize)?;
            }
            open.map_bytes = map_bytes;
        }
        Ok(())
    }

    /// Writes the file anew without its free pages, for a map of so many bytes. Readers go on until the new one takes its place.
    /// Only for the one thread that writes.
    pub(crate) fn compact(&self, map_bytes: u64) -> Result<(), StorageTrouble> {
        let copy = self.dir.join(COPY);
        let made = self.copy_to(&copy);
        if made.is_err() {
            // It may not have been begun.
            let _ = std::fs::remove_file(&copy);
            return made;
        }
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before another takes its name: the last to hold it is the gate.
        *gate = None;
        let renamed = std::fs::rename(&copy, self.path());
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        let open = self.open_file(map_bytes);
        *gate = Some(open.map_err(|_| StorageTrouble::Failed)?);
        renamed.and(synced).map_err(|source| trouble_of_io(&source))
    }

    fn copy_to(&self, copy: &Path) -> Result<(), StorageTrouble> {
        let opened = self.get().map_err(|error| trouble_of(&error))?;
        let file = opened
            .env()
            .copy_to_path(copy, heed::CompactionOption::Enabled)
            .map_err(|error| self.trouble(&error))?;
        file.sync_all().map_err(|source| trouble_of_io(&source))
    }

    /// What a failed write means. LMDB reports one that the system cut short, as it does where space ends within it, as an
    /// error of the device: whether the file can grow tells the two apart.
    pub(crate) fn trouble(&self, error: &heed::Error) -> StorageTrouble {
        match trouble_of(error) {
            StorageTrouble::Failed => match self.try_to_grow() {
                Ok(()) => StorageTrouble::Failed,
                Err(source) => trouble_of_io(&source),
            },
            trouble => trouble,
        }
    }

    /// The same of a result.
    pub(crate) fn trouble_of<T>(&self, result: heed::Result<T>) -> Result<T, StorageTrouble> {
        result.map_err(|error| self.trouble(&error))
    }

    fn try_to_grow(&self) -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.path())?;
        let length = file.metadata()?.len();
        let grown = file
            .write_all(&[0; GROWTH_BYTES])
            .and_then(|()| file.sync_data());
        file.set_len(length)?;
        grown
    }
}

fn open_env(dir: &Path, map_bytes: u64, tables: u32) -> Result<Lmdb, Fault> {
    let mut options = heed::EnvOpenOptions::new().read_txn_without_tls();
    options
        .map_size(map_bytes as usize)
        .max_dbs(tables)
        .max_readers(READERS_MAX);
    // SAFETY: the file is used by this process alone, which the lock file ensures, and is never changed but through LMDB.
    #[allow(
        unsafe_code,
        reason = "a memory map is only as safe as its file, which the lock file keeps to this process"
    )]
    let opened = unsafe { options.open(dir) };
    let path = dir.join(FILE);
    let env = opened.map_err(|error| Fault::lmdb(&path, error))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{Raw, open_one};

    fn rows(env: &Environment<Raw>) -> usize {
        let opened = env.get().unwrap();
        let txn = opened.env().read_txn().unwrap();
        opened.handles().len(&txn).unwrap() as usize
    }

    fn filled(dir: &Path) -> Environment<Raw> {
        let env = Environment::open(dir, 16 << 20, 1, |env| open_one(env, "rows")).unwrap();
        let opened = env.get().unwrap();
        let mut txn = opened.env().write_txn().unwrap();
        for number in 0..200u32 {
            let key = number.to_be_bytes();
            opened.handles().put(&mut txn, &key, &[7; 30_000]).unwrap();
        }
        txn.commit().unwrap();
        let mut txn = opened.env().write_txn().unwrap();
        for number in 10..200u32 {
            let key = number.to_be_bytes();
            opened.handles().delete(&mut txn, &key).unwrap();
        }
        txn.commit().unwrap();
        drop(opened);
        env
    }

    #[test]
    fn written_anew_it_is_small_and_holds_what_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let env = filled(dir.path());
        let before = env.file_bytes();
        env.compact(1 << 20).unwrap();
        assert!(before > 6_000_000, "{before}");
        assert!(env.file_bytes() < 500_000, "{}", env.file_bytes());
        assert_eq!((rows(&env), env.map_bytes()), (10, 1 << 20));
        env.resize(32 << 20).unwrap();
        assert_eq!((rows(&env), env.map_bytes()), (10, 32 << 20));
        drop(env);
        let env = Environment::open(dir.path(), 1 << 20, 1, |env| open_one(env, "rows")).unwrap();
        assert_eq!(rows(&env), 10);
    }

    /// The process may end before the new file takes its place: then the old one counts, and what was written of the new goes.
    #[test]
    fn a_copy_that_was_not_finished_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        std::fs::write(dir.path().join(COPY), [1; 5_000]).unwrap();
        let env = Environment::open(dir.path(), 16 << 20, 1, |env| open_one(env, "rows")).unwrap();
        assert_eq!(rows(&env), 10);
        assert!(!dir.path().join(COPY).exists());
    }

    #[test]
    fn readers_that_are_under_way_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let env = filled(dir.path());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert_eq!(rows(&env), 10)));
            }
            for round in 0..10 {
                match round % 2 {
                    0 => env.compact(1 << 20).unwrap(),
                    _ => env.resize((16 + round) << 20).unwrap(),
                }
            }
        });
        assert_eq!(rows(&env), 10);
    }
}
