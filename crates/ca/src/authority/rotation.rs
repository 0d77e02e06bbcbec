//! The change of the root, in steps between which everything may restart.
//!
//! ```text
//! stable --begin--> begun --switch--> switched --finish--> stable
//!           both roots trusted,   the new authority     the old root is
//!           the old one signs     signs                 trusted no longer
//!                    \--cancel--> stable
//! ```
//!
//! No step is taken before the one before it has reached everybody: [`Step::Switch`] waits until every
//! certificate in use was given out together with both roots, [`Step::Finish`] until every one in use
//! is signed under the new root. Nobody is refused in between.

use std::{fs, sync::PoisonError, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{Authority, Pending, generation_dir, rfc3339};
use crate::{
    CaFiles, OpenError, Phase, Source,
    record::{Generation, Record},
};

/// A step of the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Makes the next root, or takes the operator's, and trusts it beside the old one.
    Begin,
    /// Lets the next authority sign.
    Switch,
    /// Trusts the old root no longer.
    Finish,
    /// Gives up a change that has begun, before the next authority has signed anything.
    Cancel,
}

/// Why a step is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The steps have an order.
    #[error("the change of the root is {now:?}: {step:?} cannot follow")]
    Order {
        /// How far it has come.
        now: Phase,
        /// What was asked.
        step: Step,
    },
    /// The step before has not reached everybody.
    #[error(
        "{count} certificates in use are older than this phase, the first that of {} until {}; wait, or \
         cut them off with --force",
        .first.identity, .first.until
    )]
    Early {
        /// How many.
        count: usize,
        /// One of them.
        first: Pending,
    },
    /// The next authority cannot be made, read or used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Authority {
    /// The step that follows the phase that the change is in.
    #[must_use]
    pub fn next_step(&self) -> Step {
        match self.current().record.phase {
            Phase::Stable => Step::Begin,
            Phase::Begun => Step::Switch,
            Phase::Switched => Step::Finish,
        }
    }

    /// Takes a step; `force` does not wait for those whom the one before has not reached. `plugin` is
    /// the operator's next authority, for [`Step::Begin`]; without it our own makes one.
    ///
    /// # Errors
    ///
    /// [`RotateError`]; nothing has changed then.
    pub fn rotate(
        &self,
        step: Step,
        force: bool,
        plugin: Option<&CaFiles>,
    ) -> Result<(), RotateError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.current().record.clone();
        let since = rfc3339(self.clock.now());
        let next = match (record.phase, step) {
            (Phase::Stable, Step::Begin) => self.begin(&record, since, plugin)?,
            (Phase::Begun, Step::Switch) => {
                self.expect_reached(force)?;
                let issuer = record.generations.last().map_or(record.issuer, |last| last.number);
                Record { issuer, ..record.on(Phase::Switched, since) }
            }
            (Phase::Switched, Step::Finish) => {
                self.expect_reached(force)?;
                only_issuer(record.on(Phase::Stable, since))
            }
            (Phase::Begun, Step::Cancel) => only_issuer(record.on(Phase::Stable, since)),
            (now, step) => return Err(RotateError::Order { now, step }),
        };
        let gone: Vec<u32> = record
            .generations
            .iter()
            .map(|one| one.number)
            .filter(|number| !next.generations.iter().any(|kept| kept.number == *number))
            .collect();
        let current = self.setting().current(next)?;
        self.install(current)?;
        tracing::warn!(?step, force, "the root is being changed");
        for number in gone {
            // A key that is left over signs nothing that anybody trusts.
            if let Err(error) = fs::remove_dir_all(generation_dir(&self.dir, number)) {
                tracing::warn!(number, %error, "the files of a retired authority are left over");
            }
        }
        Ok(())
    }

    /// The workloads' certificates in use that the present phase has not reached.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        let record = &self.current().record;
        if record.phase == Phase::Stable {
            return Vec::new();
        }
        let older = self.log.before(record.epoch, self.now());
        older
            .into_iter()
            .map(|(serial, live)| Pending {
                identity: live.identity,
                serial,
                until: rfc3339(live.not_after),
            })
            .collect()
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn expect_reached(&self, force: bool) -> Result<(), RotateError> {
        let pending = self.pending();
        match pending.first() {
            Some(first) if !force => {
                Err(RotateError::Early { count: pending.len(), first: first.clone() })
            }
            _ => Ok(()),
        }
    }

    fn begin(
        &self,
        record: &Record,
        since: String,
        plugin: Option<&CaFiles>,
    ) -> Result<Record, OpenError> {
        let setting = self.setting();
        let number = record.next_number();
        let source = if plugin.is_some() { Source::Plugin } else { Source::Own };
        let mut next = record.on(Phase::Begun, since);
        next.generations.push(Generation { number, source });
        if let Some(files) = plugin {
            setting.check("the plug-in CA", files)?;
            setting.import(number, files)?;
        }
        let files = setting.files_of(&next, number)?;
        // What could not sign after the switch is not begun with.
        setting.check(&generation_dir(&self.dir, number).display().to_string(), &files)?;
        Ok(next)
    }
}

fn only_issuer(mut record: Record) -> Record {
    record.generations.retain(|one| one.number == record.issuer);
    record
}
