//! The one writer: applies batches in the order they come and commits them in groups.
//!
//! A write transaction stays open while batches come in; a durable one commits it at once, others within
//! [`COMMIT_DELAY_MS`], so that a fan-in of a hundred small batches costs one sync. The first posts after as long are committed
//! nearly at once, since a person may wait for them, and what comes in large amounts in steps of [`LARGE_DELAY_MS`]. Each batch of rows
//! is a nested transaction: one that fails leaves nothing of itself. Reads run in the open transaction and so see what is not
//! committed yet; behind a durable batch they wait for its commit.
//!
//! Slices are committed before the rows of their group, and blobs forgotten after them: what rows name is there, whenever the
//! process ends. Their bytes go while nobody asks for anything, or with the next slices, and within seconds
//! whoever asks. Then too a file that is larger than its share of the budget is written anew.

use crate::answer::Answerer;
use crate::apply::{apply, makes_room};
use crate::blobs::Shrunk;
use crate::disk::Disk;
use crate::fault::trouble_of;
use crate::group::{Group, Taken, forgotten, has_slices};
use crate::tables::{Lmdb, Tables};
use distsoc_engine::domain::{BlobHash, NodeId};
use distsoc_engine::io::{
    BatchId, DiskUsage, Durability, Input, ReadId, ReadQuery, StorageTrouble, Write,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long something learned waits for company; far below the 2 s of PROTOCOL section 12, so that followers see posts soon.
const COMMIT_DELAY_MS: u64 = 150;
/// How long the first posts after [`COMMIT_DELAY_MS`] wait for those that come with them.
const FIRST_DELAY_MS: u64 = 16;
/// How long a large group goes on growing: a sync is seen to go on in steps of this.
const LARGE_DELAY_MS: u64 = 50;
/// Both are committed once nothing came for so long.
const QUIET_MS: u64 = 8;
/// Commits between two attempts to make the reserve again.
const COMMITS_PER_RESERVE: u32 = 16;
/// Commits after a failed attempt to write a file anew.
const COMMITS_PER_SHRINK: u32 = 64;
/// Or the time after which it is made again where nothing is committed: others may have left room on the disk.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// The bytes of forgotten blobs go once nothing came for so long.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// Or after so many times as long, whatever comes.
const FLUSH_LATEST: u32 = 4;
/// A step towards a smaller budget waits for jobs no longer than this.
const STEP_AFTER: Duration = Duration::from_secs(2);

/// What the writer is asked for.
pub(crate) enum Job {
    Persist(BatchId, Vec<Write>, Durability),
    Read(ReadId, ReadQuery),
    Budget(u64),
    Close,
}

pub(crate) struct Writer {
    disk: Arc<Disk>,
    own: NodeId,
    deliver: Box<dyn Fn(Input) + Send>,
    /// When posts were committed last.
    posts_at: Option<Instant>,
    /// What was said last.
    usage: DiskUsage,
    /// How long after the last job the bytes of forgotten blobs go.
    flush_after: Duration,
    /// Since when there are any, as far as was seen.
    gone_since: Option<Instant>,
    /// Whether a step towards a smaller budget may lead somewhere.
    may_shrink: bool,
    /// When the last was taken, and after how long the next comes before any job.
    stepped_at: Instant,
    step_after: Duration,
    /// Commits until that is tried again which the disk had no room for.
    shrink_pause: u32,
    /// Or the time until then, and since when it is waited for.
    retry_after: Duration,
    paused_at: Option<Instant>,
    commits: u32,
}

/// Why a group of batches is committed now.
enum Next {
    Job(Job),
    Commit,
    Stop,
}

/// What comes after a group.
enum After {
    Wait,
    Job(Job),
    Stop,
}

fn lacks_room(result: Result<(), StorageTrouble>) -> bool {
    result.is_err_and(StorageTrouble::lacks_room)
}

impl Writer {
    pub(crate) fn new(
        disk: Arc<Disk>,
        own: NodeId,
        usage: DiskUsage,
        deliver: Box<dyn Fn(Input) + Send>,
    ) -> Self {
        Self {
            disk,
            own,
            deliver,
            posts_at: None,
            usage,
            flush_after: FLUSH_AFTER,
            gone_since: None,
            may_shrink: usage.is_shrinking,
            stepped_at: Instant::now(),
            step_after: STEP_AFTER,
            shrink_pause: 0,
            retry_after: RETRY_AFTER,
            paused_at: None,
            commits: 0,
        }
    }

    /// Works until told to close or nobody can ask any more.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        let mut after = After::Wait;
        loop {
            let job = match after {
                After::Stop => return self.flush(),
                After::Job(job) => job,
                After::Wait if self.may_shrink => match self.before_step(jobs) {
                    Some(job) => job,
                    None => {
                        self.shrink();
                        after = After::Wait;
                        continue;
                    }
                },
                After::Wait => match self.wait(jobs) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => {
                        self.idle();
                        after = After::Wait;
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            after = match job {
                Job::Close => After::Stop,
                Job::Read(read, query) => {
                    self.read_committed(read, &query);
                    After::Wait
                }
                Job::Budget(bytes) => {
                    self.set_budget(bytes);
                    After::Wait
                }
                Job::Persist(batch, writes, durability) => {
                    self.group(batch, writes, durability, jobs)
                }
            };
        }
    }

    /// A job that goes before the next step towards a smaller budget: any that waits, until none was taken for long.
    fn before_step(&self, jobs: &Receiver<Job>) -> Option<Job> {
        let is_late = self.stepped_at.elapsed() >= self.step_after;
        (!is_late).then(|| jobs.try_recv().ok()).flatten()
    }

    /// The next job, or the time to do something that nobody asked for: at last that comes first, however many ask.
    fn wait(&mut self, jobs: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        let since =
            |is_so: bool, since: Option<Instant>| is_so.then(|| since.unwrap_or_else(Instant::now));
        self.gone_since = since(self.disk.blobs.has_gone(), self.gone_since);
        self.paused_at = since(self.shrink_pause > 0, self.paused_at);
        let latest = self.flush_after * FLUSH_LATEST;
        let flush = self
            .gone_since
            .map(|since| latest.saturating_sub(since.elapsed()).min(self.flush_after));
        match flush.into_iter().chain(self.until_retry()).min() {
            Some(Duration::ZERO) => Err(RecvTimeoutError::Timeout),
            Some(patience) => jobs.recv_timeout(patience),
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// How long until a step towards a smaller budget is tried again.
    fn until_retry(&self) -> Option<Duration> {
        self.paused_at
            .map(|since| self.retry_after.saturating_sub(since.elapsed()))
    }

    fn idle(&mut self) {
        if self.until_retry() == Some(Duration::ZERO) {
            (self.shrink_pause, self.paused_at) = (0, None);
            self.may_shrink = self.usage.is_shrinking;
        } else if self.disk.blobs.has_gone() {
            self.flush();
        }
    }

    /// Deletes what of forgotten blobs is there.
    fn flush(&mut self) {
        let mut flushed = self.disk.blobs.flush();
        while flushed == Err(StorageTrouble::Full) && self.disk.reserve.release() {
            flushed = self.disk.blobs.flush();
        }
        self.flush_after = if flushed.is_ok() {
            FLUSH_AFTER
        } else {
            RETRY_AFTER
        };
        self.gone_since = None;
        self.tell_usage(false);
    }

    /// One transaction: from its first batch to its commit.
    fn group(
        &mut self,
        batch: BatchId,
        writes: Vec<Write>,
        durability: Durability,
        jobs: &Receiver<Job>,
    ) -> After {
        let mut group = Group::default();
        let disk = self.disk.clone();
        let (after, committed) =
            match self.gather(&disk, &mut group, jobs, batch, writes, durability) {
                Ok(gathered) => gathered,
                Err((batch, error)) => {
                    let trouble = self.disk.tables.trouble(&error);
                    (self.deliver)(Input::PersistFailed(batch, trouble));
                    return After::Wait;
                }
            };
        if group.posts > 0 {
            self.posts_at = Some(Instant::now());
        }
        self.settle(&mut group, committed);
        for taken in group.taken {
            (self.deliver)(match taken.result {
                Some(Err(trouble)) => Input::PersistFailed(taken.batch, trouble),
                _ => Input::Persisted(taken.batch),
            });
        }
        for (read, query) in group.reads {
            self.read_committed(read, &query);
        }
        self.after_commit(group.is_deleting);
        after
    }

    /// Takes batches until it is time to commit, and commits.
    fn gather(
        &self,
        disk: &Disk,
        group: &mut Group,
        jobs: &Receiver<Job>,
        batch: BatchId,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<(After, Result<(), StorageTrouble>), (BatchId, heed::Error)> {
        let opened = disk.tables.get().map_err(|error| (batch, error))?;
        let (env, tables) = (opened.env(), opened.handles());
        let mut txn = env.write_txn().map_err(|error| (batch, error))?;
        let begun = Instant::now();
        let (mut durable, mut after) = (false, After::Wait);
        let mut next = Next::Job(Job::Persist(batch, writes, durability));
        loop {
            match next {
                Next::Job(Job::Persist(batch, writes, durability)) => {
                    if group.is_against(&writes) {
                        after = After::Job(Job::Persist(batch, writes, durability));
                        break;
                    }
                    durable |= durability == Durability::Durable;
                    if !self.take(env, &tables, &mut txn, group, batch, writes) {
                        break;
                    }
                }
                Next::Job(Job::Read(read, query)) if durable => group.reads.push((read, query)),
                Next::Job(Job::Read(read, query)) => {
                    let answerer = Answerer {
                        txn: &txn,
                        tables: &tables,
                    };
                    let result = answerer.answer(&query);
                    (self.deliver)(Input::Read { read, result });
                }
                Next::Job(job @ Job::Budget(_)) => {
                    after = After::Job(job);
                    break;
                }
                Next::Job(Job::Close) | Next::Stop => {
                    after = After::Stop;
                    break;
                }
                Next::Commit => break,
            }
            next = match (durable, group.is_full()) {
                (_, true) => Next::Commit,
                // Whoever queued behind a durable batch already goes with it.
                (true, false) => jobs.try_recv().map_or(Next::Commit, Next::Job),
                (false, false) => match jobs.recv_timeout(self.patience(group, begun)) {
                    Ok(job) => Next::Job(job),
                    Err(RecvTimeoutError::Timeout) => Next::Commit,
                    Err(RecvTimeoutError::Disconnected) => Next::Stop,
                },
            };
        }
        self.store_slices(group);
        let committed = txn.commit().map_err(|error| disk.tables.trouble(&error));
        Ok((after, committed))
    }

    /// How long the next batch is waited for.
    fn patience(&self, group: &Group, begun: Instant) -> Duration {
        let ms = Duration::from_millis;
        let posts_are_rare = self
            .posts_at
            .is_none_or(|at| at.elapsed() >= ms(COMMIT_DELAY_MS));
        let first = group.posts_since.filter(|_| posts_are_rare);
        let (since, delay_ms) = match (first, group.is_large()) {
            (Some(first), _) => (first, FIRST_DELAY_MS),
            (None, true) => (begun, LARGE_DELAY_MS),
            (None, false) => return ms(COMMIT_DELAY_MS).saturating_sub(begun.elapsed()),
        };
        ms(delay_ms)
            .saturating_sub(since.elapsed())
            .min(ms(QUIET_MS))
    }

    /// Takes a batch into the group; false where what comes must wait until the group is settled.
    fn take(
        &self,
        env: &Lmdb,
        tables: &Tables,
        txn: &mut heed::RwTxn<'_>,
        group: &mut Group,
        batch: BatchId,
        writes: Vec<Write>,
    ) -> bool {
        let mut result = None;
        group.posts += writes
            .iter()
            .filter(|write| matches!(write, Write::Post { .. }))
            .count();
        if group.posts > 0 {
            group.posts_since.get_or_insert_with(Instant::now);
        }
        group.is_deleting |= writes
            .iter()
            .any(|write| matches!(write, Write::ForgetPost(_) | Write::ForgetBlob(_)));
        if has_slices(&writes) {
            group.slices += writes.len();
        } else if let Err(error) = self.apply_batch(env, tables, txn, &writes) {
            result = Some(Err(self.disk.tables.trouble(&error)));
        } else {
            group.forgotten.extend(forgotten(&writes));
        }
        // It will be tried again, and what comes after it comes after that.
        let is_open = matches!(result, Some(Err(trouble)) if trouble.lacks_room())
            && makes_room(&writes, &self.own);
        group.taken.push(Taken {
            batch,
            writes,
            result,
        });
        !is_open
    }

    fn apply_batch(
        &self,
        env: &Lmdb,
        tables: &Tables,
        parent: &mut heed::RwTxn<'_>,
        writes: &[Write],
    ) -> heed::Result<()> {
        let mut txn = env.nested_write_txn(parent)?;
        for write in writes {
            apply(&mut txn, tables, write)?;
        }
        if !makes_room(writes, &self.own) && self.disk.passes_rows(env, tables, &txn)? {
            return Err(heed::MdbError::MapFull.into());
        }
        txn.commit()
    }

    /// Stores what slices there are.
    fn store_slices(&self, group: &mut Group) {
        let (mut slices, mut owners) = (Vec::new(), Vec::new());
        for (place, taken) in group.taken.iter().enumerate() {
            for write in &taken.writes {
                if let Write::Slice(slice) = write {
                    slices.push(slice);
                    owners.push(place);
                }
            }
        }
        if slices.is_empty() {
            return;
        }
        let results = self.disk.blobs.store(&slices);
        for (owner, result) in owners.into_iter().zip(results) {
            let whole = &mut group.taken[owner].result;
            if !matches!(whole, Some(Err(_))) {
                *whole = Some(result);
            }
        }
    }

    /// Ends what the commit left open: a batch that makes room is tried again with what is kept back for it, and blobs are
    /// forgotten that no committed row names.
    fn settle(&mut self, group: &mut Group, committed: Result<(), StorageTrouble>) {
        let mut gone: BTreeSet<BlobHash> = BTreeSet::new();
        for taken in &mut group.taken {
            if has_slices(&taken.writes) {
                continue;
            }
            let mut result = taken.result.unwrap_or(committed);
            if lacks_room(result) && makes_room(&taken.writes, &self.own) {
                result = self.make_room(&taken.writes);
            }
            if result.is_ok() {
                gone.extend(forgotten(&taken.writes));
            }
            taken.result = Some(result);
        }
        if !gone.is_empty() {
            let gone: Vec<BlobHash> = gone.into_iter().collect();
            self.forget(&gone);
        }
    }

    fn forget(&mut self, gone: &[BlobHash]) {
        // Their rows are gone for good: where the disk fails, they follow later, or at the next start.
        if lacks_room(self.disk.blobs.forget(gone)) {
            self.flush();
        }
    }

    /// Deletes from tables that are full, or on a disk that is: at once, or in as many steps as it takes. Each row that goes may
    /// lie on a page of its own, which is copied before the old one is free. What comes with the list that says so goes with it or not
    /// at all: a long one takes many pages in a row, for which the file is written anew where those that are free lie apart.
    fn make_room(&mut self, writes: &[Write]) -> Result<(), StorageTrouble> {
        let disk = self.disk.clone();
        let mut done = 0;
        let mut try_in_steps = |step: usize| -> heed::Result<()> {
            while done < writes.len() {
                let end = writes.len().min(done + step);
                let opened = disk.tables.get()?;
                let mut txn = opened.env().write_txn()?;
                for write in &writes[done..end] {
                    apply(&mut txn, &opened.handles(), write)?;
                }
                txn.commit()?;
                done = end;
            }
            Ok(())
        };
        let mut step = writes.len();
        let is_list = |write: &Write| matches!(write, Write::RecentPosts { .. });
        let is_whole = writes.iter().any(is_list);
        let opened = disk.tables.trouble_of(disk.open_spare());
        let mut tried = opened.and_then(|()| disk.tables.trouble_of(try_in_steps(step)));
        let mut is_joined = false;
        while lacks_room(tried) {
            let has_released = tried == Err(StorageTrouble::Full) && self.disk.reserve.release();
            if !has_released && is_whole {
                if is_joined || tried == Err(StorageTrouble::Full) {
                    break;
                }
                tried = disk.join_free_pages();
                is_joined = tried.is_ok();
                if !is_joined {
                    continue;
                }
            } else if !has_released {
                if step == 1 {
                    break;
                }
                step = step.div_ceil(8);
            }
            tried = disk.tables.trouble_of(try_in_steps(step));
        }
        disk.tables.trouble_of(disk.fit_tables())?;
        tried
    }

    fn after_commit(&mut self, is_asked: bool) {
        self.commits = self.commits.wrapping_add(1);
        self.shrink_pause = self.shrink_pause.saturating_sub(1);
        if self.commits.is_multiple_of(COMMITS_PER_RESERVE) {
            // Where there is no room for it yet, there may be later.
            self.disk.reserve.make(self.disk.shares().reserve);
        }
        self.tell_usage(is_asked);
        self.may_shrink = self.usage.is_shrinking && self.shrink_pause == 0;
    }

    /// Says how full the disk is, if it has changed or was asked for.
    fn tell_usage(&mut self, is_asked: bool) {
        // What cannot be read now is said after the next commit.
        let Ok(usage) = self.disk.usage() else { return };
        if usage != self.usage || is_asked {
            self.usage = usage;
            (self.deliver)(Input::Disk(usage));
        }
    }

    fn set_budget(&mut self, bytes: u64) {
        // Where it could not be stored, the usage that is said names the old one.
        let mut set = self.disk.set_budget(bytes);
        while set == Err(StorageTrouble::Full) && self.disk.reserve.release() {
            set = self.disk.set_budget(bytes);
        }
        self.tell_usage(true);
        self.may_shrink = self.usage.is_shrinking;
    }

    /// One step towards a smaller budget.
    fn shrink(&mut self) {
        let mut shrunk = self.disk.shrink();
        // The other half is for deleting still.
        let whole = self.disk.shares().reserve;
        if shrunk == Err(StorageTrouble::Full) && self.disk.reserve.release_of(whole) {
            shrunk = self.disk.shrink();
        }
        self.stepped_at = Instant::now();
        self.may_shrink = shrunk == Ok(Shrunk::Step);
        match shrunk {
            Err(_) => (self.shrink_pause, self.paused_at) = (COMMITS_PER_SHRINK, None),
            Ok(Shrunk::Done) => drop(self.disk.reserve.make(whole)),
            Ok(Shrunk::Step | Shrunk::Waits) => {}
        }
        self.tell_usage(false);
    }

    fn read_committed(&self, read: ReadId, query: &ReadQuery) {
        let answered = self.disk.tables.get().and_then(|opened| {
            let txn = opened.env().read_txn()?;
            let answerer = Answerer {
                txn: &txn,
                tables: &opened.handles(),
            };
            Ok(answerer.answer(query))
        });
        let result = answered.unwrap_or_else(|error| Err(trouble_of(&error)));
        (self.deliver)(Input::Read { read, result });
    }
}

#[cfg(test)]
mod tests;
