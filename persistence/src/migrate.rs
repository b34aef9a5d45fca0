//! Schema versions: an older layout is brought up to date in one transaction, a newer one is refused.

use crate::fault::Fault;
use crate::tables::{Lmdb, SCHEMA_VERSION, Tables};
use distsoc_engine::domain::NodeId;
use std::path::Path;

/// Brings the layout from its version to the next.
type Migration = fn(&mut heed::RwTxn<'_>, &Tables) -> heed::Result<()>;

/// `MIGRATIONS[n]` leads from version `n + 1` to `n + 2`.
const MIGRATIONS: &[Migration] = &[];

const SCHEMA: &[u8] = b"schema";
const NODE: &[u8] = b"node";

/// Checks version and owner of a database, and brings it up to date; a new one is claimed.
pub(crate) fn check(env: &Lmdb, tables: &Tables, own: NodeId, dir: &Path) -> Result<(), Fault> {
    check_against(env, tables, own, dir, MIGRATIONS, SCHEMA_VERSION)
}

fn check_against(
    env: &Lmdb,
    tables: &Tables,
    own: NodeId,
    dir: &Path,
    migrations: &[Migration],
    known: u32,
) -> Result<(), Fault> {
    let fault = |error| Fault::lmdb(dir, error);
    let mut txn = env.write_txn().map_err(fault)?;
    let version = tables.meta.get(&txn, SCHEMA).map_err(fault)?.map(<[u8]>::to_vec);
    let Some(version) = version else {
        tables.meta.put(&mut txn, SCHEMA, &known.to_be_bytes()).map_err(fault)?;
        tables.meta.put(&mut txn, NODE, own.as_bytes()).map_err(fault)?;
        return txn.commit().map_err(fault);
    };
    let found = version.try_into().map(u32::from_be_bytes).map_err(|_| Fault::Corrupt { table: "meta" })?;
    if found > known {
        return Err(Fault::NewerSchema { found, known });
    }
    let owner = tables.meta.get(&txn, NODE).map_err(fault)?;
    let owner = owner.and_then(crate::rows::node_of).ok_or(Fault::Corrupt { table: "meta" })?;
    if owner != own {
        return Err(Fault::OtherIdentity {
            dir: dir.into(),
            found: owner.to_string(),
        });
    }
    if found == known {
        return Ok(());
    }
    for migration in migrations.iter().skip(found.saturating_sub(1) as usize) {
        migration(&mut txn, tables).map_err(fault)?;
    }
    tables.meta.put(&mut txn, SCHEMA, &known.to_be_bytes()).map_err(fault)?;
    txn.commit().map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open_env;

    #[test]
    fn older_is_migrated_newer_refused_and_anothers_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let env = open_env(dir.path(), 1 << 24).unwrap();
        let tables = Tables::open(&env).unwrap();
        let own = NodeId::from_bytes([1; 32]);
        check(&env, &tables, own, dir.path()).unwrap();
        check(&env, &tables, own, dir.path()).unwrap();

        let add_row: Migration = |txn, tables| tables.meta.put(txn, b"migrated", b"yes");
        check_against(&env, &tables, own, dir.path(), &[add_row], 2).unwrap();
        let txn = env.read_txn().unwrap();
        assert_eq!(tables.meta.get(&txn, b"migrated").unwrap(), Some(&b"yes"[..]));
        drop(txn);

        let newer = check(&env, &tables, own, dir.path());
        assert!(matches!(newer, Err(Fault::NewerSchema { found: 2, known: 1 })), "{newer:?}");
        let other = check_against(&env, &tables, NodeId::from_bytes([2; 32]), dir.path(), &[add_row], 2);
        assert!(matches!(other, Err(Fault::OtherIdentity { .. })), "{other:?}");
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let env = open_env(dir.path(), 1 << 24).unwrap();
        let tables = Tables::open(&env).unwrap();
        let own = NodeId::from_bytes([1; 32]);
        check(&env, &tables, own, dir.path()).unwrap();
        let fails: Migration = |txn, tables| {
            tables.meta.put(txn, b"half", b"done")?;
            Err(heed::Error::Mdb(heed::MdbError::MapFull))
        };
        assert!(check_against(&env, &tables, own, dir.path(), &[fails], 2).is_err());
        let txn = env.read_txn().unwrap();
        assert_eq!(tables.meta.get(&txn, b"half").unwrap(), None);
        drop(txn);
        check(&env, &tables, own, dir.path()).unwrap();
    }
}
