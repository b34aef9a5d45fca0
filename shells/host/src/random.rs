//! Randomness from the operating system, the only place that asks for it.

use crate::fault::Fault;

/// `N` bytes that nobody can guess.
///
/// # Errors
/// [`Fault::Random`] where the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Fault::Random(error.to_string()))?;
    Ok(bytes)
}
