//! The log of plugins, in the host's: an event of plugin `hope` has target `plugin::hope`, and its own level, file and
//! line. `HOST_LOG=plugin=debug` shows those of all plugins.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, RStr};
use plugin_api::abi::{Loc, LogSink, LogSink_TO, level};
use tracing::callsite::{Callsite, Identifier};
use tracing::field::{FieldSet, Value};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, dispatcher};

/// Lines of code whose events are told apart; those of later ones share the place of their plugin.
const MOST_SITES: usize = 4096;

/// A sink for the library `plugin`, and the greatest level that anybody here listens to.
pub fn sink(plugin: &str) -> (LogSink_TO<'static, RBox<()>>, u8) {
    let greatest = match LevelFilter::current() {
        LevelFilter::OFF => level::OFF,
        LevelFilter::ERROR => level::ERROR,
        LevelFilter::WARN => level::WARN,
        LevelFilter::INFO => level::INFO,
        LevelFilter::DEBUG => level::DEBUG,
        LevelFilter::TRACE => level::TRACE,
    };
    let sink = Sink { target: format!("plugin::{plugin}"), sites: Mutex::default() };
    (LogSink_TO::from_value(sink, TD_Opaque), greatest)
}

struct Sink {
    target: String,
    sites: Mutex<HashMap<Place, &'static Site>>,
}

/// Level, file and line.
type Place = (u8, String, u32);

/// Where an event comes from, as `tracing` wants it: for ever. Made once for each place, and then kept.
struct Site {
    metadata: OnceLock<Metadata<'static>>,
}

const FIELDS: &[&str] = &["message"];

impl Callsite for Site {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata.get_or_init(|| unreachable!("a site is filled when it is made"))
    }
}

impl Site {
    fn new(target: &str, (level, file, line): &Place) -> &'static Site {
        let site: &'static Site = Box::leak(Box::new(Site { metadata: OnceLock::new() }));
        let leaked = |text: &str| -> &'static str { Box::leak(text.to_string().into_boxed_str()) };
        let file = (!file.is_empty()).then(|| leaked(file));
        let fields = FieldSet::new(FIELDS, Identifier(site));
        let kind = tracing::metadata::Kind::EVENT;
        let (target, line) = (leaked(target), file.map(|_| *line));
        let level = host_level(*level);
        // It was empty: nobody else has it yet.
        let _ = site.metadata.set(Metadata::new("plugin", target, level, file, line, None, fields, kind));
        site
    }
}

fn host_level(code: u8) -> Level {
    match code {
        level::OFF | level::ERROR => Level::ERROR,
        level::WARN => Level::WARN,
        level::INFO => Level::INFO,
        level::DEBUG => Level::DEBUG,
        _ => Level::TRACE,
    }
}

impl Sink {
    fn site(&self, place: Place) -> &'static Site {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let place = if sites.len() < MOST_SITES { place } else { (place.0, String::new(), 0) };
        if let Some(site) = sites.get(&place) {
            return site;
        }
        let site = Site::new(&self.target, &place);
        sites.insert(place, site);
        site
    }
}

impl LogSink for Sink {
    fn enabled(&self, level: u8, _: RStr<'_>) -> bool {
        let site = self.site((level, String::new(), 0));
        dispatcher::get_default(|listener| listener.enabled(site.metadata()))
    }

    fn event(&self, level: u8, _: RStr<'_>, message: RStr<'_>, spans: RStr<'_>, loc: Loc<'_>) {
        let site = self.site((level, loc.file.to_string(), loc.line));
        let metadata: &'static Metadata<'static> =
            site.metadata.get_or_init(|| unreachable!("a site is filled when it is made"));
        let text = if spans.is_empty() { message.to_string() } else { format!("{spans}: {message}") };
        dispatcher::get_default(|listener| {
            if listener.enabled(metadata) {
                for field in metadata.fields() {
                    let told = format_args!("{text}");
                    let values = [(&field, Some(&told as &dyn Value))];
                    listener.event(&Event::new(metadata, &metadata.fields().value_set(&values)));
                }
            }
        });
    }
}
