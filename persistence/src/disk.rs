//! The files of a data folder together, and the budget that they keep to (PROTOCOL section 7, quota).

use crate::blobs::{Blobs, Shrunk};
use crate::budget::{Reserve, Shares, bytes_in_folder, bytes_on_disk};
use crate::environment::Environment;
use crate::fault::{Fault, trouble_of};
use crate::tables::{Lmdb, TABLES, Tables};
use distsoc_engine::io::{DiskUsage, StorageTrouble};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The name in `meta` of a budget that the person set.
const BUDGET: &[u8] = b"budget";
/// What a file that was written anew has beside its rows.
const COMPACT_SPARE_BYTES: u64 = 128 * 1024;

/// Tables, blobs and the reserve.
pub(crate) struct Disk {
    dir: PathBuf,
    pub(crate) tables: Environment<Tables>,
    pub(crate) blobs: Blobs,
    pub(crate) reserve: Reserve,
    shares: Mutex<Shares>,
    /// Why the tables could not be written anew, and the bytes of the blobs' files then: it is tried again once they are fewer.
    tables_wait: Mutex<Option<(StorageTrouble, u64)>>,
}

impl Disk {
    /// Opens them; `check` sees the tables before anything else does.
    pub(crate) fn open(
        dir: &Path,
        budget_bytes: u64,
        check: impl FnOnce(&Environment<Tables>) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let db = dir.join("db");
        let first = Shares::of(budget_bytes);
        let tables = Environment::open(&db, first.rows, TABLES.len() as u32, Tables::open)?;
        check(&tables)?;
        let stored = stored_budget(&tables).map_err(|error| Fault::lmdb(&db, error))?;
        let stored = match stored {
            Some(row) => crate::rows::number_of(&row).ok_or(Fault::Corrupt { table: "meta" })?,
            None => budget_bytes,
        };
        let shares = Shares::of(stored);
        let disk = Self {
            dir: dir.into(),
            tables,
            blobs: Blobs::open(&dir.join("blobs"), shares.shelf)?,
            reserve: Reserve::in_folder(dir),
            shares: Mutex::new(shares),
            tables_wait: Mutex::new(None),
        };
        disk.fit_tables().map_err(|error| Fault::lmdb(&db, error))?;
        // Where there is no room for it now, there may be later.
        disk.reserve.make(shares.reserve);
        Ok(disk)
    }

    pub(crate) fn shares(&self) -> Shares {
        *self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that everything takes.
    pub(crate) fn file_bytes(&self) -> u64 {
        bytes_in_folder(&self.dir.join("db"))
            + self.blobs.file_bytes()
            + bytes_on_disk(self.reserve.path())
    }

    /// Bytes in use in the tables.
    fn row_bytes(&self) -> heed::Result<u64> {
        let opened = self.tables.get()?;
        let txn = opened.env().read_txn()?;
        opened.handles().used_bytes(opened.env(), &txn)
    }

    /// Whether rows take more than their share, in a file that is larger than it: the pages that deleting made are for deleting alone.
    pub(crate) fn passes_rows(
        &self,
        env: &Lmdb,
        tables: &Tables,
        txn: &heed::RoTxn<'_>,
    ) -> heed::Result<bool> {
        let most = self.shares().rows;
        Ok(self.tables.file_bytes() > most && tables.used_bytes(env, txn)? > most)
    }

    /// Writes the tables anew, so that what is free of their share lies together.
    pub(crate) fn join_free_pages(&self) -> Result<(), StorageTrouble> {
        self.tables.compact(self.shares().tables)
    }

    /// How full the disk is, as of the last commit.
    pub(crate) fn usage(&self) -> heed::Result<DiskUsage> {
        let shares = self.shares();
        Ok(DiskUsage {
            budget_bytes: shares.budget,
            file_bytes: self.file_bytes(),
            row_bytes: self.row_bytes()?,
            row_room_bytes: shares.row_room,
            blob_bytes: self.blobs.used_bytes(),
            blob_room_bytes: self.blobs.room_bytes(),
            is_shrinking: !self.is_within(),
        })
    }

    /// Whether every file keeps to its share of the budget, and always will.
    pub(crate) fn is_within(&self) -> bool {
        self.are_tables_within() && self.blobs.is_within()
    }

    fn are_tables_within(&self) -> bool {
        let shares = self.shares();
        self.tables.map_bytes() == shares.rows && self.tables.file_bytes() <= shares.tables
    }

    /// Lets the tables' file have its share, or where it is larger, what deleting needs beside it.
    pub(crate) fn fit_tables(&self) -> heed::Result<()> {
        let shares = self.shares();
        let file = self.tables.file_bytes();
        let fits = file <= shares.tables && self.row_bytes()? <= shares.rows;
        self.tables.resize(match fits {
            true => shares.rows,
            false => shares.tables.max(file + shares.tables - shares.rows),
        })
    }

    /// While something is deleted, the tables may use what is kept back for it.
    pub(crate) fn open_spare(&self) -> heed::Result<()> {
        let shares = self.shares();
        let most = shares.tables.max(self.tables.map_bytes());
        self.tables.resize(most)
    }

    /// Keeps to another budget from now on, as far as that is possible at once.
    pub(crate) fn set_budget(&self, bytes: u64) -> Result<(), StorageTrouble> {
        let stored = (|| {
            // A larger one is the way out where there is no room in the tables.
            self.open_spare()?;
            let opened = self.tables.get()?;
            let mut txn = opened.env().write_txn()?;
            let meta = opened.handles().meta;
            meta.put(&mut txn, BUDGET, &bytes.to_be_bytes())?;
            txn.commit()
        })();
        let stored = self.tables.trouble_of(stored);
        if stored.is_ok() {
            let shares = Shares::of(bytes);
            *self.shares.lock().unwrap_or_else(PoisonError::into_inner) = shares;
            self.reserve.make(shares.reserve);
        }
        // What was opened for it is closed again however it ended.
        self.fit_tables().map_err(|error| trouble_of(&error))?;
        stored?;
        self.blobs
            .set_share(self.shares().shelf)
            .map_err(|error| trouble_of(&error))
    }

    /// Writes one file anew that is larger than its share, if what is in use fits.
    pub(crate) fn shrink(&self) -> Result<Shrunk, StorageTrouble> {
        let mut wait = self.tables_wait();
        let blob_bytes = self.blobs.file_bytes();
        let waiting = wait.take().filter(|(_, bytes)| blob_bytes >= *bytes);
        let tables = match waiting {
            Some((trouble, _)) => Err(trouble),
            None if self.are_tables_within() => Ok(Shrunk::Done),
            None => match self.shrink_tables() {
                Ok(true) => return Ok(Shrunk::Step),
                Ok(false) => Ok(Shrunk::Waits),
                // Files of blobs that are written anew first may give them room.
                Err(trouble) if trouble.lacks_room() => Err(trouble),
                Err(trouble) => return Err(trouble),
            },
        };
        match (self.blobs.shrink()?, tables) {
            (Shrunk::Step, tables) => {
                *wait = tables
                    .err()
                    .map(|trouble| (trouble, waiting.map_or(blob_bytes, |(_, bytes)| bytes)));
                Ok(Shrunk::Step)
            }
            (Shrunk::Waits, Ok(Shrunk::Done)) => Ok(Shrunk::Waits),
            (_, tables) => tables,
        }
    }

    fn tables_wait(&self) -> MutexGuard<'_, Option<(StorageTrouble, u64)>> {
        self.tables_wait
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn shrink_tables(&self) -> Result<bool, StorageTrouble> {
        let shares = self.shares();
        let used = self.row_bytes().map_err(|error| trouble_of(&error))?;
        if used + COMPACT_SPARE_BYTES > shares.rows {
            return Ok(false);
        }
        if self.tables.file_bytes() > shares.tables {
            self.tables.compact(shares.rows)?;
        }
        self.fit_tables().map_err(|error| trouble_of(&error))?;
        Ok(self.are_tables_within())
    }
}

fn stored_budget(tables: &Environment<Tables>) -> heed::Result<Option<Vec<u8>>> {
    let opened = tables.get()?;
    let txn = opened.env().read_txn()?;
    let row = opened.handles().meta.get(&txn, BUDGET)?;
    Ok(row.map(<[u8]>::to_vec))
}
