//! One running script: a Lua state of one worker, used for one head after another.
//!
//! In:    a head, lent for one call.
//! Out:   the head back, and what the script decided.
//! Never: keeps a head after the call: a handle that a script stored is empty by then.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use mlua::{AnyUserData, Error, Function, HookTriggers, Lua, Thread, Value, VmState};

use crate::{Script, ScriptError, Stream, Verdict, api, sandbox};

/// Instructions of one call. A signature over a request takes some ten thousand; at this bound a
/// worker has stood still for about 0.1 s.
pub const INSTRUCTIONS_MAX: u32 = 10_000_000;
/// Memory of one instance: a script that collects without end fails before the proxy does.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;
/// How often a running script is looked at, in instructions.
const LOOK_EVERY: u32 = 10_000;

/// A script in a Lua state of its own. Belongs to one worker.
pub struct Instance<S: Stream> {
    lua: Lua,
    on_request: Option<Function>,
    on_response: Option<Function>,
    handle: AnyUserData,
    slot: api::Slot<S>,
    budget: Rc<Budget>,
}

/// What is left for one call, and why it was broken off.
#[derive(Default)]
struct Budget {
    looks_left: Cell<u32>,
    broken: Cell<Option<Break>>,
}

#[derive(Clone, Copy)]
enum Break {
    Endless,
    Memory,
}

impl Script {
    /// Starts an instance: runs the script's top level, which defines `envoy_on_request` and
    /// `envoy_on_response`.
    ///
    /// # Errors
    ///
    /// What the top level raised, such as a module or a key file that is missing.
    pub fn instance<S: Stream>(&self) -> Result<Instance<S>, ScriptError> {
        Instance::start(self)
    }
}

impl<S: Stream> Instance<S> {
    fn start(script: &Script) -> Result<Self, ScriptError> {
        let budget = Rc::new(Budget::default());
        let spent = Rc::clone(&budget);
        let lua = sandbox::state(script.modules.clone(), move || spent.broken.get().is_some())
            .map_err(run_error)?;
        watch(&lua, &budget).map_err(run_error)?;
        let slot: api::Slot<S> = Rc::new(RefCell::new(api::Lent::default()));
        let handle = api::handle(&lua, &slot).map_err(run_error)?;
        let mut instance =
            Self { lua, on_request: None, on_response: None, handle, slot, budget };
        let chunk = instance
            .lua
            .load(&script.source)
            .set_name(script.chunk_name())
            .into_function()
            .map_err(|error| ScriptError::Syntax(error.to_string()))?;
        instance.budget.refill();
        chunk.call::<()>(()).map_err(|error| instance.explain(error))?;
        instance.on_request = instance.global("envoy_on_request")?;
        instance.on_response = instance.global("envoy_on_response")?;
        Ok(instance)
    }

    /// Whether the script looks at requests.
    #[must_use]
    pub fn sees_requests(&self) -> bool {
        self.on_request.is_some()
    }

    /// Whether the script looks at responses.
    #[must_use]
    pub fn sees_responses(&self) -> bool {
        self.on_response.is_some()
    }

    /// Shows the script a request head. Without `envoy_on_request` it goes on as it is.
    ///
    /// # Errors
    ///
    /// What the script raised. The head comes back in any case, as far as it was changed; it must
    /// not be forwarded then.
    pub fn on_request(&self, stream: S) -> (S, Result<Verdict, ScriptError>) {
        self.call(self.on_request.as_ref(), stream)
    }

    /// Shows the script a response head, as [`Instance::on_request`].
    ///
    /// # Errors
    ///
    /// As [`Instance::on_request`].
    pub fn on_response(&self, stream: S) -> (S, Result<Verdict, ScriptError>) {
        self.call(self.on_response.as_ref(), stream)
    }

    fn call(&self, function: Option<&Function>, stream: S) -> (S, Result<Verdict, ScriptError>) {
        let Some(function) = function else { return (stream, Ok(Verdict::Continue)) };
        self.slot.borrow_mut().lend(stream);
        let outcome = self.run(function);
        let (stream, respond) = self.slot.borrow_mut().take_back();
        let verdict = outcome.map(|()| respond.map_or(Verdict::Continue, Verdict::Respond));
        (stream, verdict)
    }

    /// A coroutine of its own for each head, so that `respond` can end the script wherever it is.
    fn run(&self, function: &Function) -> Result<(), ScriptError> {
        self.budget.refill();
        let thread: Thread = self.lua.create_thread(function.clone()).map_err(run_error)?;
        thread.resume::<()>(&self.handle).map_err(|error| self.explain(error))?;
        let is_answered = self.slot.borrow().is_answered();
        if thread.is_resumable() && !is_answered {
            return Err(ScriptError::Run("the script yielded without calling respond".to_owned()));
        }
        Ok(())
    }

    fn global(&self, name: &str) -> Result<Option<Function>, ScriptError> {
        match self.lua.globals().get::<Value>(name).map_err(run_error)? {
            Value::Function(function) => Ok(Some(function)),
            Value::Nil => Ok(None),
            other => Err(ScriptError::Run(format!("{name} is a {}", other.type_name()))),
        }
    }

    fn explain(&self, error: Error) -> ScriptError {
        match self.budget.broken.get() {
            Some(Break::Endless) => ScriptError::Endless,
            Some(Break::Memory) => ScriptError::Memory,
            None => run_error(error),
        }
    }
}

impl Budget {
    fn refill(&self) {
        self.looks_left.set(INSTRUCTIONS_MAX / LOOK_EVERY);
        self.broken.set(None);
    }
}

/// Looks at the script as it runs. Compiled code is not looked at, so the compiler stays off.
fn watch(lua: &Lua, budget: &Rc<Budget>) -> mlua::Result<()> {
    let budget = Rc::clone(budget);
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(LOOK_EVERY), move |lua, _| {
        let left = budget.looks_left.get();
        if left == 0 {
            budget.broken.set(Some(Break::Endless));
            return Err(Error::runtime("too many instructions"));
        }
        budget.looks_left.set(left - 1);
        if lua.used_memory() > MEMORY_BYTES_MAX {
            budget.broken.set(Some(Break::Memory));
            return Err(Error::runtime("too much memory"));
        }
        Ok(VmState::Continue)
    })
}

/// The first line of an error: what was raised, without Lua's own trace.
fn run_error(error: Error) -> ScriptError {
    let mut cause = &error;
    while let Error::CallbackError { cause: inner, .. } = cause {
        cause = inner;
    }
    let text = cause.to_string();
    let first = text.lines().next().unwrap_or_default();
    ScriptError::Run(first.trim_start_matches("runtime error: ").to_owned())
}
