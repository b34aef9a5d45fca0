//! The own key: a file of its own, readable by its owner only.

use crate::fault::Fault;
use distsoc_engine::crypto::Secret;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const HEADER: &str = "distsoc secret key 1\n";

/// Where the key of a data folder lies.
#[must_use]
pub fn path(dir: &Path) -> PathBuf {
    dir.join("identity.key")
}

/// The key of a data folder, if it has one.
///
/// # Errors
/// [`Fault::BadKeyFile`] where the file is damaged or others may read it.
pub fn load(dir: &Path) -> Result<Option<Secret>, Fault> {
    let path = path(dir);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Fault::io(&path, source)),
    };
    check_private(&file, &path)?;
    let mut text = Zeroizing::new(String::new());
    let bad = |detail| Fault::BadKeyFile {
        path: path.clone(),
        detail,
    };
    // A key file is far smaller; whatever this is, it is not read to its end.
    Read::by_ref(&mut file)
        .take(1024)
        .read_to_string(&mut text)
        .map_err(|_| bad("not text"))?;
    let digits = text
        .strip_prefix(HEADER)
        .ok_or_else(|| bad("another header"))?
        .trim_end();
    let mut seed = Zeroizing::new([0u8; 32]);
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(bad("not 64 hex digits"));
    }
    for (index, byte) in seed.iter_mut().enumerate() {
        let pair = &digits[index * 2..index * 2 + 2];
        *byte = u8::from_str_radix(pair, 16).map_err(|_| bad("not 64 hex digits"))?;
    }
    Ok(Some(Secret::from_seed(&seed)))
}

/// Whether a data folder has a database, which belongs to somebody.
#[must_use]
pub fn has_database(dir: &Path) -> bool {
    let file = std::fs::metadata(dir.join("db").join("data.mdb"));
    file.is_ok_and(|file| file.len() > 0)
}

/// Writes a new key whole or not at all: a temporary file, synced, then renamed.
///
/// # Errors
/// [`Fault`] where the folder cannot be written or has a key already.
pub fn create(dir: &Path, seed: &[u8; 32]) -> Result<Secret, Fault> {
    std::fs::create_dir_all(dir).map_err(|source| Fault::io(dir, source))?;
    let (path, temporary) = (path(dir), dir.join("identity.key.new"));
    if path.exists() {
        return Err(Fault::BadKeyFile {
            path,
            detail: "there is one already",
        });
    }
    if has_database(dir) {
        // A new key could read nothing of it, and would stand in the way of the right one.
        return Err(Fault::BadKeyFile {
            path,
            detail: "missing, though the database beside it has an owner",
        });
    }
    let write = || -> std::io::Result<()> {
        let mut file =
            private(OpenOptions::new().create(true).truncate(true).write(true)).open(&temporary)?;
        let mut text = Zeroizing::new(String::from(HEADER));
        for byte in seed {
            text.push_str(&format!("{byte:02x}"));
        }
        text.push('\n');
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| Fault::io(dir, source))?;
    Ok(Secret::from_seed(seed))
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(unix)]
fn check_private(file: &File, path: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file
        .metadata()
        .map_err(|source| Fault::io(path, source))?
        .permissions()
        .mode();
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(Fault::BadKeyFile {
            path: path.into(),
            detail: "others may read it: 'chmod 600' it; if anybody may have read it, it is no secret any more",
        }),
    }
}

#[cfg(not(unix))]
fn check_private(_: &File, _: &Path) -> Result<(), Fault> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        let made = create(dir.path(), &[7; 32]).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap().node_id(), made.node_id());
        assert!(
            create(dir.path(), &[8; 32]).is_err(),
            "a key is never overwritten"
        );
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(path(dir.path()), PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(load(dir.path()), Err(Fault::BadKeyFile { .. })));
    }

    #[test]
    fn damaged_key_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &[7; 32]).unwrap();
        for text in [
            "",
            "distsoc secret key 1\n",
            "distsoc secret key 1\nzz",
            "something else\n",
            &"x".repeat(5000),
        ] {
            std::fs::write(path(dir.path()), text).unwrap();
            assert!(
                matches!(load(dir.path()), Err(Fault::BadKeyFile { .. })),
                "{text:.20}"
            );
        }
    }
}
