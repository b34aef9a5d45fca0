//! Where data lies when nobody says.

use crate::exit::Exit;
use std::path::PathBuf;

/// The given folder, or the platform's.
pub(crate) fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, Exit> {
    if let Some(given) = given {
        return Ok(given);
    }
    let platform = dirs::data_dir().ok_or_else(|| Exit::usage("this user has no data folder: name one with --data"))?;
    Ok(platform.join("distsoc"))
}
