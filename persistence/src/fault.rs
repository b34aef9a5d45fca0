//! What can be wrong with a data folder, in sentences that say what to do next.

use distsoc_engine::io::StorageTrouble;
use std::path::PathBuf;

/// Why the store does not open, or a read of it failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Another process has the folder.
    #[error("{} is in use by another distsoc process: stop that one first, or choose another folder with --data", dir.display())]
    Locked {
        /// The data folder.
        dir: PathBuf,
    },
    /// The folder or a file in it cannot be written.
    #[error("{} cannot be written: check its permissions, or choose another folder with --data", path.display())]
    ReadOnly {
        /// What cannot be written.
        path: PathBuf,
    },
    /// No space left.
    #[error("the disk of {} is full: free some space and start again, nothing that was acknowledged is lost", dir.display())]
    Full {
        /// The data folder.
        dir: PathBuf,
    },
    /// What the budget leaves is used up.
    #[error("the storage budget has no room left in {}: raise it, or delete some of your posts", dir.display())]
    Budget {
        /// The folder of the file that has reached its share.
        dir: PathBuf,
    },
    /// The database is damaged, or not one of ours.
    #[error("{} is not a distsoc database or is damaged ({detail}): move it away and start again, or restore a copy", path.display())]
    Foreign {
        /// The database file.
        path: PathBuf,
        /// What was seen.
        detail: String,
    },
    /// A row does not decode.
    #[error(
        "a row of the table '{table}' is damaged: move the data folder's 'db' away and start again, or restore a copy"
    )]
    Corrupt {
        /// Which table.
        table: &'static str,
    },
    /// Written by a later version.
    #[error(
        "the data folder was written by a newer distsoc (schema {found}, this one knows {known}): update distsoc"
    )]
    NewerSchema {
        /// The version in the folder.
        found: u32,
        /// The version this program writes.
        known: u32,
    },
    /// The database belongs to another key.
    #[error("the database in {} belongs to node {found}, but the key file beside it is another's: put the two together again", dir.display())]
    OtherIdentity {
        /// The data folder.
        dir: PathBuf,
        /// Whose data it is, in hex.
        found: String,
    },
    /// The key file is not one.
    #[error("{} cannot be used as the key file ({detail}): restore it from a backup", path.display())]
    BadKeyFile {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// Reading or writing failed for another reason.
    #[error("{}: {source}", path.display())]
    Io {
        /// Of what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Fault {
    /// The fault for an operation on a path.
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let path = path.into();
        match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full { dir: path }
            }
            _ => Self::Io { path, source },
        }
    }

    /// The fault for an LMDB error on the database in a folder.
    pub(crate) fn lmdb(path: impl Into<PathBuf>, error: heed::Error) -> Self {
        let path = path.into();
        match error {
            heed::Error::Io(source) => Self::io(path, source),
            other => match trouble_of(&other) {
                StorageTrouble::Full => Self::Full { dir: path },
                StorageTrouble::ReadOnly => Self::ReadOnly { path },
                StorageTrouble::Corrupt => Self::Foreign {
                    path,
                    detail: other.to_string(),
                },
                StorageTrouble::Failed => Self::Io {
                    path,
                    source: std::io::Error::other(other.to_string()),
                },
                StorageTrouble::Budget => Self::Budget { dir: path },
            },
        }
    }
}

/// What an LMDB error means for the node.
pub(crate) fn trouble_of(error: &heed::Error) -> StorageTrouble {
    use heed::MdbError;
    use std::io::ErrorKind;
    match error {
        heed::Error::Mdb(MdbError::MapFull) => StorageTrouble::Budget,
        heed::Error::Mdb(
            MdbError::Invalid
            | MdbError::Corrupted
            | MdbError::VersionMismatch
            | MdbError::PageNotFound
            | MdbError::Panic,
        ) => StorageTrouble::Corrupt,
        heed::Error::Mdb(MdbError::Other(code)) => {
            trouble_of_io(&std::io::Error::from_raw_os_error(*code))
        }
        heed::Error::Io(source) => match source.kind() {
            ErrorKind::NotFound => StorageTrouble::Failed,
            _ => trouble_of_io(source),
        },
        heed::Error::Decoding(_) => StorageTrouble::Corrupt,
        _ => StorageTrouble::Failed,
    }
}

/// What an error of the system means for the node.
pub(crate) fn trouble_of_io(error: &std::io::Error) -> StorageTrouble {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            StorageTrouble::Full
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StorageTrouble::ReadOnly,
        _ => StorageTrouble::Failed,
    }
}
