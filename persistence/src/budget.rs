//! What a budget is divided into (PROTOCOL section 7, quota), and the bytes that are kept back for deleting.
//!
//! A quarter is for the tables, the rest for blobs. From the quarter goes what is beside the tables: the files by which LMDB knows
//! its readers, and the reserve. So nothing that is written can pass the budget: each file ends at its share.

use crate::blobs::SHELVES;
use crate::environment::whole_steps;
use distsoc_engine::limits;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A shelf's share of a budget.
const SHELF_SHARE: u64 = 16;
/// The tables' share of a budget.
const TABLES_SHARE: u64 = 4;
/// Files by which LMDB knows its readers, one beside each environment.
const LOCK_FILE_BYTES: u64 = 16 * 1024;
/// The reserve's share of a budget, and its bytes at most.
const RESERVE_SHARE: u64 = 64;
const RESERVE_BYTES_MAX: u64 = 4 << 20;
/// Less than this is no use.
const RESERVE_BYTES_MIN: u64 = 64 * 1024;
/// Of the tables' share, what only deleting may use: sixteenths, and bytes at most.
const SPARE_SHARE: u64 = 16;
const SPARE_BYTES_MAX: u64 = 8 << 20;
/// And of what is left, what no row gets: for copies of pages that change, the list of free ones, and gaps between rows too small for
/// another. Measured: rows of random lengths that come and go have no room for more at 88 to 94 % of their file, in files of 3 to 15 MB.
const GAPS_SHARE: u64 = 8;
/// Less than this is taken for this: below, what is kept back would be most of it.
pub const BUDGET_BYTES_MIN: u64 = 16_000_000;

/// The parts of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// All of it.
    pub(crate) budget: u64,
    /// Bytes that the tables' file may have while something is deleted.
    pub(crate) tables: u64,
    /// Bytes that it may have otherwise.
    pub(crate) rows: u64,
    /// Bytes of it that rows may take.
    pub(crate) row_room: u64,
    /// Bytes of the reserve.
    pub(crate) reserve: u64,
    /// Bytes that a shelf's file may have.
    pub(crate) shelf: u64,
}

impl Shares {
    pub(crate) fn of(budget: u64) -> Self {
        // A folder that was told more in the past must open still.
        let budget = budget.clamp(BUDGET_BYTES_MIN, limits::BUDGET_BYTES_MAX);
        let reserve = (budget / RESERVE_SHARE).min(RESERVE_BYTES_MAX);
        let beside = reserve + LOCK_FILE_BYTES * (SHELVES as u64 + 1);
        let tables = whole_steps(budget / TABLES_SHARE - beside);
        let rows = whole_steps(tables - (tables / SPARE_SHARE).min(SPARE_BYTES_MAX));
        Self {
            budget,
            tables,
            rows,
            row_room: rows - rows / GAPS_SHARE,
            reserve,
            shelf: whole_steps(budget / SHELF_SHARE),
        }
    }
}

/// A file of nothing. Where no byte is free, deleting needs some first: then half of the file goes, so that there is some left for the
/// next time though others take what was free at once. What is deleted from has free pages of its own by then.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(crate) fn in_folder(dir: &Path) -> Self {
        let path = dir.join("reserve");
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Gives half of its bytes to the system, and all where they are few; false where there were none.
    pub(crate) fn release(&self) -> bool {
        let left = self.file_bytes() / 2;
        match self.file_bytes() {
            0 => false,
            _ if left < RESERVE_BYTES_MIN => std::fs::remove_file(&self.path).is_ok(),
            _ => self.cut(left).is_ok(),
        }
    }

    /// The same, but only where it is as large as this.
    pub(crate) fn release_of(&self, bytes: u64) -> bool {
        self.file_bytes() == bytes && self.release()
    }

    /// Makes it as large as this, if it is not; false where there is no room for it: then it stays as it is.
    pub(crate) fn make(&self, bytes: u64) -> bool {
        let before = self.file_bytes();
        if before >= bytes {
            return before == bytes || self.cut(bytes).is_ok();
        }
        let made = self.extend(bytes - before);
        if made.is_err() {
            let _ = match before {
                0 => std::fs::remove_file(&self.path),
                _ => self.cut(before),
            };
        }
        made.is_ok()
    }

    fn open(&self) -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).open(&self.path)
    }

    fn cut(&self, bytes: u64) -> std::io::Result<()> {
        let file = self.open()?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn extend(&self, bytes: u64) -> std::io::Result<()> {
        // Not zeros, which some systems store as nothing.
        let block: Vec<u8> = (0..64 * 1024u32).map(|place| (place % 251) as u8).collect();
        let mut file = self.open()?;
        let mut lacking = bytes as usize;
        while lacking > 0 {
            let next = lacking.min(block.len());
            file.write_all(&block[..next])?;
            lacking -= next;
        }
        file.sync_all()
    }
}

/// Bytes that a file takes: its length, or less where parts of it are on no disk.
pub(crate) fn bytes_on_disk(path: &Path) -> u64 {
    let Ok(file) = std::fs::metadata(path) else {
        return 0;
    };
    #[cfg(unix)]
    let allocated = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
    #[cfg(not(unix))]
    let allocated = file.len();
    file.len().min(allocated)
}

/// Bytes that the files of a folder take.
pub(crate) fn bytes_in_folder(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.map(|path| bytes_on_disk(&path)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_budget_never_pass_it() {
        let budgets = [
            0,
            16_000_000,
            16 << 20,
            33_333_333,
            1_000_000_000,
            10 << 40,
            u64::MAX,
        ];
        for budget in budgets {
            let shares = Shares::of(budget);
            let beside = shares.reserve + LOCK_FILE_BYTES * (SHELVES as u64 + 1);
            let all = shares.tables + beside + SHELVES as u64 * shares.shelf;
            assert!(all <= shares.budget, "{shares:?}");
            assert!(all * 100 > shares.budget * 90, "{shares:?}");
            assert!(shares.rows < shares.tables, "{shares:?}");
        }
    }

    #[test]
    fn the_reserve_takes_its_bytes_and_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::in_folder(dir.path());
        assert!(!reserve.release());
        assert!(reserve.make(300_000));
        assert_eq!(bytes_in_folder(dir.path()), 300_000);
        assert!(reserve.make(100_000));
        assert_eq!(bytes_in_folder(dir.path()), 100_000);
        assert!(reserve.make(300_000) && reserve.release());
        assert_eq!(bytes_in_folder(dir.path()), 150_000);
        assert!(reserve.release() && reserve.release() && !reserve.release());
        assert_eq!(bytes_in_folder(dir.path()), 0);
    }
}
