//! Bounds on what a script may use: instructions and memory.
//!
//! LuaJIT's hooks do not run in compiled code, so that the compiler is off and the interpreter
//! counts. It is LuaJIT's interpreter all the same: several times as fast as plain Lua's.

use std::{cell::Cell, rc::Rc};

use mlua::{HookTriggers, Lua, VmState};

/// Instructions between two looks at the budget: a look costs about as much as a hundred
/// instructions.
const STEP: u32 = 10_000;

/// Instructions that loading a script, with its modules, may take: about a second. Modules compute
/// tables when they are loaded.
pub(crate) const LOAD_INSTRUCTIONS_MAX: u64 = 100_000_000;

/// Instructions that one call may take: some 20 ms, in which the worker does nothing else. Signing
/// a request takes about 20 thousand.
pub(crate) const CALL_INSTRUCTIONS_MAX: u64 = 2_000_000;

/// Memory that one script may hold, per worker. A script with a few modules takes one megabyte.
pub(crate) const MEMORY_MAX: usize = 32 << 20;

/// A script has used up its instructions.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the script ran for more than {0} instructions")]
pub(crate) struct Exhausted(pub(crate) u64);

/// The instructions that are left.
#[derive(Clone, Default)]
pub(crate) struct Budget(Rc<State>);

#[derive(Default)]
struct State {
    total: Cell<u64>,
    left: Cell<u64>,
    /// Whether the hook runs at each instruction, because the budget is used up.
    pouncing: Cell<bool>,
}

impl Budget {
    /// Installs the budget in a new state.
    pub(crate) fn install(lua: &Lua) -> mlua::Result<Self> {
        lua.set_memory_limit(MEMORY_MAX)?;
        let budget = Self::default();
        budget.set_hook(lua, STEP)?;
        Ok(budget)
    }

    /// Grants instructions for one run.
    pub(crate) fn grant(&self, lua: &Lua, instructions: u64) -> mlua::Result<()> {
        self.0.total.set(instructions);
        self.0.left.set(instructions);
        if self.0.pouncing.replace(false) {
            self.set_hook(lua, STEP)?;
        }
        Ok(())
    }

    /// Whether the last run used up its instructions; even if the script hid the error.
    pub(crate) fn exhausted(&self) -> Option<Exhausted> {
        self.0.pouncing.get().then(|| Exhausted(self.0.total.get()))
    }

    fn set_hook(&self, lua: &Lua, every: u32) -> mlua::Result<()> {
        let budget = self.clone();
        let triggers = HookTriggers::new().every_nth_instruction(every);
        lua.set_global_hook(triggers, move |lua, _| {
            let state = &budget.0;
            let left = state.left.get().saturating_sub(u64::from(every));
            state.left.set(left);
            if left > 0 {
                return Ok(VmState::Continue);
            }
            // From now on every instruction fails: a script that catches the error gets no further
            // than the next one outside of its `pcall`.
            if !state.pouncing.replace(true) {
                budget.set_hook(lua, 1)?;
            }
            Err(mlua::Error::external(Exhausted(state.total.get())))
        })
    }
}
