//! One script, loaded for one worker.

use std::{cell::RefCell, fmt, rc::Rc};

use mlua::Function;

use crate::{
    Begin, Host, Run, RunError, Side, Step, Stream,
    budget::{Budget, LOAD_INSTRUCTIONS_MAX},
    sandbox,
    worker::{Current, Worker, message},
};

/// A script, ready to run. It has a Lua state of its own: its globals live from run to run, and many
/// runs may be under way.
///
/// It belongs to one worker: it cannot be sent to another thread.
pub struct Script {
    on_request: Option<Function>,
    on_response: Option<Function>,
    worker: Rc<Worker>,
}

/// Why a script was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is not Lua, or it failed when it was loaded.
    #[error("script {name} does not load: {message}")]
    Load {
        /// The filter's name.
        name: String,
        /// Lua's message, with the line.
        message: String,
    },
    /// It has neither `envoy_on_request` nor `envoy_on_response`.
    #[error("script {name} defines neither envoy_on_request nor envoy_on_response")]
    Empty {
        /// The filter's name.
        name: String,
    },
}

impl Script {
    /// Loads a script and runs its top level: functions are defined, modules are required.
    ///
    /// # Errors
    ///
    /// [`CompileError`]; a filter whose script does not load must answer every request with 500.
    pub fn compile(source: &str, name: &str, host: &Host) -> Result<Self, CompileError> {
        let current = Current::default();
        let fault = |error: &mlua::Error| CompileError::Load {
            name: name.to_owned(),
            message: message(error),
        };
        let load = || -> mlua::Result<_> {
            let lua = sandbox::state(host, &current)?;
            let budget = Budget::install(&lua)?;
            budget.grant(&lua, LOAD_INSTRUCTIONS_MAX)?;
            let chunk = lua.load(source).set_name(format!("={name}"));
            chunk.set_mode(mlua::chunk::ChunkMode::Text).exec()?;
            if let Some(exhausted) = budget.exhausted() {
                return Err(mlua::Error::external(exhausted));
            }
            let on_request: Option<Function> = lua.globals().get("envoy_on_request")?;
            let on_response: Option<Function> = lua.globals().get("envoy_on_response")?;
            Ok((lua, budget, on_request, on_response))
        };
        let (lua, budget, on_request, on_response) = load().map_err(|error| fault(&error))?;
        if on_request.is_none() && on_response.is_none() {
            return Err(CompileError::Empty { name: name.to_owned() });
        }
        let spare = RefCell::default();
        let worker = Rc::new(Worker { name: name.to_owned(), budget, current, spare, lua });
        Ok(Self { on_request, on_response, worker })
    }

    /// Whether the script wants to see messages of this side.
    #[must_use]
    pub fn handles(&self, side: Side) -> bool {
        match side {
            Side::Request => self.on_request.is_some(),
            Side::Response => self.on_response.is_some(),
        }
    }

    /// Starts the function of a side; [`Step::Done`] and no run when the script has none.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the client must get a 500.
    pub fn start(
        &self,
        begin: Begin,
        stream: &mut dyn Stream,
    ) -> Result<(Option<Run>, Step), RunError> {
        let function = match begin.side {
            Side::Request => &self.on_request,
            Side::Response => &self.on_response,
        };
        let Some(function) = function else { return Ok((None, Step::Done)) };
        let (run, step) = Run::start(&self.worker, function, begin, stream)?;
        Ok((Some(run), step))
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("name", &self.worker.name).finish_non_exhaustive()
    }
}
