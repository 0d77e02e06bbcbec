//! Where the values of credentials come from, and how they stay fresh.
//!
//! In:    for each credential an [`Order`]: its [`Origin`] and how it is kept.
//! Out:   for each an [`Account`]: the current version, the one before while its grace lasts, and how
//!        it stands with its source.
//! Never: is linked by the proxy; shows a value in `Debug`, an error, a log or an argument; keeps a
//!        value beyond its end, or beyond the bound on how stale it may be.
//!
//! Start at [`Custodian`], which runs; [`Keeper`] decides what is in force, without a clock of its own;
//! [`Fetcher`] asks the sources.

mod custodian;
mod error;
mod fetch;
mod keeper;
mod origin;
mod sealed;
mod value;

pub use custodian::{Custodian, Ledger, Orders, Refresh};
pub use error::{FetchError, Reason};
pub use fetch::Fetcher;
pub use keeper::{Account, Keeper, Schedule, Status};
pub use origin::{ExecOrigin, FileOrigin, Order, Origin, VaultAuth, VaultEngine, VaultOrigin};
pub use sealed::{Identity, Recipient, SealError, identities, open, seal};
pub use value::{Entries, Fetched, Label, Value, Version};
