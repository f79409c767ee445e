//! Panics stop at the plugin's edge and become errors that say what and where.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use abi_stable::std_types::{RErr, ROk, RResult};

use crate::abi::PluginError;

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs `body`; a panic becomes a [`PluginError`] with its message and source line. Nothing is printed: the hook that
/// is set here belongs to this library alone, since every cdylib carries its own standard library.
pub fn guard<T>(body: impl FnOnce() -> Result<T, PluginError>) -> RResult<T, PluginError> {
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
            LAST_PANIC.with(|last| *last.borrow_mut() = place);
        }));
    });
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => ROk(value),
        Ok(Err(error)) => RErr(error),
        Err(payload) => {
            let location = LAST_PANIC.with(|last| last.borrow_mut().take()).unwrap_or_default();
            RErr(PluginError {
                message: format!("panicked: {}", text_of(payload.as_ref())).into(),
                location: location.into(),
            })
        }
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Drops a component without letting a panic out.
pub struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub fn new(value: T) -> Guarded<T> {
        Guarded(Some(value))
    }

    pub fn get(&self) -> Result<&T, PluginError> {
        let gone = || PluginError { message: "used after drop".into(), location: Default::default() };
        self.0.as_ref().ok_or_else(gone)
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        let _ = guard(|| {
            drop(value);
            Ok(())
        });
    }
}
