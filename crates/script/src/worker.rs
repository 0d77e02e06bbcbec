//! What the runs of one script share on their worker.

use std::{cell::RefCell, rc::Rc};

use mlua::Lua;

use crate::{
    RunError,
    budget::{Budget, MEMORY_MAX},
    exchange::Exchange,
};

/// The run that is under way.
pub(crate) type Current = Rc<RefCell<Option<Rc<RefCell<Exchange>>>>>;

/// What the runs of a script share.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) budget: Budget,
    pub(crate) current: Current,
    /// The memory of runs that have ended.
    pub(crate) spare: RefCell<Vec<Rc<RefCell<Exchange>>>>,
    pub(crate) lua: Lua,
}

impl Worker {
    /// A failure of the script.
    pub(crate) fn fault(&self, error: &mlua::Error) -> RunError {
        RunError::Script { name: self.name.clone(), message: message(error) }
    }
}

/// What went wrong, in one line: without the stack, which names our own functions.
pub(crate) fn message(error: &mlua::Error) -> String {
    let text = match error {
        mlua::Error::CallbackError { cause, .. } => return message(cause),
        mlua::Error::MemoryError(_) => {
            return format!("the script uses more than {} MiB", MEMORY_MAX >> 20);
        }
        mlua::Error::RuntimeError(text) => text.clone(),
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    text.split("\nstack traceback:").next().unwrap_or_default().trim().to_owned()
}
