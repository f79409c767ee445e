//! The log of a plugin. A library has its own copy of `tracing` and nobody listens to it, so the host hands over a sink
//! and the events of the plugin's `tracing::info!` and its siblings go there, with the spans they happened in.
//!
//! Filters apply on the host's side. The host's greatest level is handed over with the sink: an event beyond it costs
//! one comparison and is never formatted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use abi_stable::std_types::RBox;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::abi::{level, Loc, LogSink_TO};

/// Fills `PluginRoot::log`. Only the first sink of a process is used: there is one host.
pub extern "C" fn log(sink: LogSink_TO<'static, RBox<()>>, greatest: u8) {
    let greatest = match greatest {
        level::OFF => LevelFilter::OFF,
        level::ERROR => LevelFilter::ERROR,
        level::WARN => LevelFilter::WARN,
        level::INFO => LevelFilter::INFO,
        level::DEBUG => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let spans = Mutex::new(Spans { open: HashMap::new(), next: NonZeroU64::MIN });
    // A plugin that has set a subscriber of its own keeps it.
    let _ = tracing::subscriber::set_global_default(Forward { sink, greatest, spans });
}

/// Sends events to the host.
struct Forward {
    sink: LogSink_TO<'static, RBox<()>>,
    greatest: LevelFilter,
    spans: Mutex<Spans>,
}

struct Spans {
    open: HashMap<u64, Span>,
    next: NonZeroU64,
}

struct Span {
    /// Name and fields: `chunk{n=3}`.
    text: String,
    handles: usize,
}

thread_local! {
    /// Spans that this thread is in, outermost first.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn code(of: &Level) -> u8 {
    match *of {
        Level::ERROR => level::ERROR,
        Level::WARN => level::WARN,
        Level::INFO => level::INFO,
        Level::DEBUG => level::DEBUG,
        Level::TRACE => level::TRACE,
    }
}

impl Forward {
    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `outer{n=3}:inner`.
    fn entered(&self) -> String {
        let spans = self.spans();
        ENTERED.with_borrow(|entered| {
            let texts = entered.iter().filter_map(|id| Some(spans.open.get(id)?.text.as_str()));
            texts.collect::<Vec<_>>().join(":")
        })
    }
}

impl Subscriber for Forward {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match *metadata.level() <= self.greatest {
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = metadata.level();
        *level <= self.greatest && self.sink.enabled(code(level), metadata.target().into())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.greatest)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let mut spans = self.spans();
        let id = spans.next;
        spans.next = id.saturating_add(1);
        let text = fields.after(span.metadata().name());
        spans.open.insert(id.get(), Span { text, handles: 1 });
        Id::from_non_zero_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(span) = self.spans().open.get_mut(&id.into_u64()) {
            span.text = fields.after(&span.text);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (metadata, spans) = (event.metadata(), self.entered());
        let loc = Loc {
            file: metadata.file().unwrap_or_default().into(),
            line: metadata.line().unwrap_or_default(),
            column: 0,
        };
        let message = fields.message();
        self.sink.event(
            code(metadata.level()),
            metadata.target().into(),
            message.as_str().into(),
            spans.as_str().into(),
            loc,
        );
    }

    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }

    fn exit(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| {
            if let Some(at) = entered.iter().rposition(|entered| *entered == id.into_u64()) {
                entered.remove(at);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().open.get_mut(&id.into_u64()) {
            span.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut spans = self.spans();
        let Some(span) = spans.open.get_mut(&id.into_u64()) else { return false };
        span.handles -= 1;
        let last = span.handles == 0;
        if last {
            spans.open.remove(&id.into_u64());
        }
        last
    }
}

/// The message of an event and its other fields, as text.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Fields {
    /// `message name=value name=value`.
    fn message(self) -> String {
        let gap = if self.message.is_empty() || self.others.is_empty() { "" } else { " " };
        self.message + gap + &self.others
    }

    /// `name{name=value}`, or more fields in the braces that are there.
    fn after(self, name: &str) -> String {
        match (self.others.is_empty(), name.strip_suffix('}')) {
            (true, _) => name.to_string(),
            (false, Some(open)) => format!("{open} {}}}", self.others),
            (false, None) => format!("{name}{{{}}}", self.others),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail; a Debug that says it did leaves what it wrote.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => {
                let gap = if self.others.is_empty() { "" } else { " " };
                write!(self.others, "{gap}{name}={value:?}")
            }
        };
    }
}
