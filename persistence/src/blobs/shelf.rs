//! One environment of slices.

use super::index::Index;
use crate::environment::Environment;
use crate::fault::Fault;
use crate::tables::{Raw, open_one};
use distsoc_engine::domain::{BlobHash, PAGE_BYTES, Slice, Verified, pages_of};
use distsoc_engine::io::StorageTrouble;
use heed::{Error, MdbError};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

/// Pages of a shelf that no slice gets: for its tree, its list of free pages, and the copies that a change is made in. Without
/// them nothing could be deleted from a full one.
const SPARE_PAGES: u64 = 64;
/// Pages that one transaction frees at most, as far as blobs end there: the list of them must have room too.
const FREED_PAGES_MAX: u64 = 4096;
/// What lies on a shelf and counts no more: it goes with the shelf's next commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone {
    hash: BlobHash,
    first: u32,
    last: u32,
    /// What it takes.
    pub(crate) pages: u64,
}

impl Gone {
    /// All that is there of a blob.
    pub(crate) fn blob(hash: BlobHash, pages: u64) -> Self {
        let (first, last) = (0, u32::MAX);
        Self {
            hash,
            first,
            last,
            pages,
        }
    }

    /// One slice, of so many bytes, that lies on another shelf.
    pub(crate) fn slice(hash: BlobHash, slice: u32, bytes: usize) -> Self {
        Self {
            hash,
            first: slice,
            last: slice,
            pages: pages_of(bytes),
        }
    }
}

/// A key that is no slice's.
const TURN_KEY: &[u8] = &[0];

fn key_of(hash: &BlobHash, slice: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(hash.as_bytes());
    key[32..].copy_from_slice(&slice.to_be_bytes());
    key
}

fn parts_of(key: &[u8]) -> Option<(BlobHash, u32)> {
    let (hash, slice) = key.split_first_chunk::<32>()?;
    let slice = u32::from_be_bytes(slice.try_into().ok()?);
    Some((BlobHash::from_bytes(*hash), slice))
}

/// Pages that slices may take of a file of so many bytes.
pub(crate) fn room_of(share_bytes: u64) -> u64 {
    let pages = share_bytes / PAGE_BYTES;
    pages.saturating_sub(SPARE_PAGES.max(pages / 16))
}

fn delete(txn: &mut heed::RwTxn<'_>, table: Raw, gone: &[Gone]) -> heed::Result<()> {
    for one in gone {
        let (first, last) = (key_of(&one.hash, one.first), key_of(&one.hash, one.last));
        let all = (Bound::Included(&first[..]), Bound::Included(&last[..]));
        table.delete_range(txn, &all)?;
    }
    Ok(())
}

/// One environment.
pub(crate) struct Shelf(Environment<Raw>);

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Mdb(MdbError::MapFull))
}

impl Shelf {
    pub(crate) fn open(dir: &Path, share_bytes: u64) -> Result<Self, Fault> {
        std::fs::create_dir_all(dir).map_err(|source| Fault::io(dir, source))?;
        let env = Environment::open(dir, share_bytes, 1, |env| open_one(env, "slices"))?;
        Ok(Self(env))
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.0.file_bytes()
    }

    /// Reads which slices are there, without their bytes, and gives back those that another shelf has too: the process ended while
    /// they were moved, or after they had been forgotten here and came again. Nothing is written, since the disk may be full. A key
    /// that is no slice's is passed over.
    pub(crate) fn load(&self, number: u8, index: &mut Index) -> Result<Vec<Gone>, Fault> {
        let fault = |error| Fault::lmdb(self.0.path(), error);
        let mut gone = Vec::new();
        let opened = self.0.get().map_err(fault)?;
        let txn = opened.env().read_txn().map_err(fault)?;
        for row in opened.handles().iter(&txn).map_err(fault)? {
            let (key, value) = row.map_err(fault)?;
            let Some((hash, slice)) = parts_of(key) else {
                continue;
            };
            if !index.add(&hash, slice, number, value.len()) {
                gone.push(Gone::slice(hash, slice, value.len()));
            }
        }
        Ok(gone)
    }

    /// The stored bytes of a slice.
    pub(crate) fn get(&self, hash: &BlobHash, slice: u32) -> heed::Result<Option<Arc<[u8]>>> {
        let opened = self.0.get()?;
        let txn = opened.env().read_txn()?;
        let found = opened.handles().get(&txn, &key_of(hash, slice))?;
        Ok(found.map(Arc::from))
    }

    /// Deletes what is gone and stores slices in one commit; says of each slice whether it had room.
    pub(crate) fn put(
        &self,
        gone: &[Gone],
        slices: &[&Verified<Slice>],
    ) -> Result<Vec<bool>, StorageTrouble> {
        let rows: Vec<_> = slices
            .iter()
            .map(|slice| {
                let key = key_of(&slice.blob().hash, slice.number());
                (key, &slice.bytes()[..])
            })
            .collect();
        self.put_rows(gone, &rows)
    }

    /// Deletes what is gone and takes a slice that lies on another shelf; false where it has no room.
    pub(crate) fn take(
        &self,
        gone: &[Gone],
        hash: &BlobHash,
        slice: u32,
        bytes: &[u8],
    ) -> Result<bool, StorageTrouble> {
        let stored = self.put_rows(gone, &[(key_of(hash, slice), bytes)])?;
        Ok(stored == [true])
    }

    fn put_rows(
        &self,
        gone: &[Gone],
        rows: &[([u8; 36], &[u8])],
    ) -> Result<Vec<bool>, StorageTrouble> {
        let Err(error) = self.put_all(gone, rows) else {
            return Ok(vec![true; rows.len()]);
        };
        let trouble = self.0.trouble(&error);
        if !trouble.lacks_room() {
            return Err(trouble);
        }
        self.delete(gone)?;
        // What the last transaction freed may be used by the next but one; then each by itself, since what is free may lie apart.
        let turned = self.turn().and_then(|()| self.put_each(rows));
        match turned {
            Err(error) if is_full(&error) => Ok(vec![false; rows.len()]),
            other => other.map_err(|error| self.0.trouble(&error)),
        }
    }

    fn put_all(&self, gone: &[Gone], rows: &[([u8; 36], &[u8])]) -> heed::Result<()> {
        let opened = self.0.get()?;
        let mut txn = opened.env().write_txn()?;
        delete(&mut txn, opened.handles(), gone)?;
        for (key, bytes) in rows {
            opened.handles().put(&mut txn, key, bytes)?;
        }
        txn.commit()
    }

    fn put_each(&self, rows: &[([u8; 36], &[u8])]) -> heed::Result<Vec<bool>> {
        let opened = self.0.get()?;
        let mut txn = opened.env().write_txn()?;
        let mut stored = Vec::with_capacity(rows.len());
        for (key, bytes) in rows {
            let mut nested = opened.env().nested_write_txn(&mut txn)?;
            let put = opened.handles().put(&mut nested, key, bytes);
            match put.and_then(|()| nested.commit()) {
                Ok(()) => stored.push(true),
                Err(error) if is_full(&error) => stored.push(false),
                Err(error) => return Err(error),
            }
        }
        txn.commit()?;
        Ok(stored)
    }

    /// A transaction that changes next to nothing.
    fn turn(&self) -> heed::Result<()> {
        let opened = self.0.get()?;
        let mut txn = opened.env().write_txn()?;
        opened.handles().put(&mut txn, TURN_KEY, &[])?;
        opened.handles().delete(&mut txn, TURN_KEY)?;
        txn.commit()
    }

    /// Deletes what is gone.
    pub(crate) fn delete(&self, gone: &[Gone]) -> Result<(), StorageTrouble> {
        let mut from = 0;
        while from < gone.len() {
            let mut pages = 0;
            let rest = &gone[from..];
            let count = rest.iter().take_while(|one| {
                let fits = pages < FREED_PAGES_MAX;
                pages += one.pages;
                fits
            });
            let until = from + count.count();
            self.delete_at_once(&gone[from..until])
                .map_err(|error| self.0.trouble(&error))?;
            from = until;
        }
        Ok(())
    }

    fn delete_at_once(&self, gone: &[Gone]) -> heed::Result<()> {
        let opened = self.0.get()?;
        let mut txn = opened.env().write_txn()?;
        delete(&mut txn, opened.handles(), gone)?;
        txn.commit()
    }

    /// Whether its file keeps to this share, and always will.
    pub(crate) fn is_within(&self, share_bytes: u64) -> bool {
        self.0.map_bytes() == share_bytes && self.file_bytes() <= share_bytes
    }

    /// Keeps to a share of so many bytes if that is possible at once; else it may grow only by what deleting needs.
    pub(crate) fn fit(&self, share_bytes: u64, used_pages: u64) -> heed::Result<()> {
        let spare = SPARE_PAGES * PAGE_BYTES;
        let file = self.file_bytes();
        let fits = file <= share_bytes && used_pages <= room_of(share_bytes);
        self.0.resize(match fits {
            true => share_bytes,
            false => share_bytes.max((file + spare).next_multiple_of(1 << 16)),
        })
    }

    /// Writes the file anew within its share.
    pub(crate) fn compact(&self, share_bytes: u64) -> Result<(), StorageTrouble> {
        self.0.compact(share_bytes)
    }
}
