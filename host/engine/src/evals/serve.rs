//! What an eval sees of a run: the model behind `ModelSession`, data and tokenizer behind `HostServices`.
//!
//! Requests that start from nothing are read side by side, in rows of one session, those of like length together. All
//! others are about one text, the **line**, in a session of one row.

use std::cell::RefCell;
use std::collections::BTreeMap;

use abi_stable::std_types::{RErr, ROk, RResult, RStr, RString, RVec};
use data::Stream;
use plugin_api::abi::{HostServices, ModelSession, PluginError, Request, Response, request, service};
use serde_json::{Value, json};

use super::Progress;
use crate::Error;
use crate::run::Trained;
use crate::session::{Mode, Price, Session, Snapshot};

/// Texts that are read side by side.
const ROWS: usize = 8;

/// Most tokens that one request may generate, and most texts that an eval may ask for: more is a mistake, and would not
/// come to an end.
const MOST_GENERATED: u64 = 1_000_000;
const MOST_TEXTS: usize = 100_000;

pub(super) struct Served<'r> {
    trained: &'r Trained<'r>,
    /// Opened when they are first asked for: an eval often needs but one of them.
    side: RefCell<Option<Session>>,
    line: RefCell<Option<Session>>,
    snapshots: RefCell<BTreeMap<u64, Snapshot>>,
    limit: usize,
    tell: RefCell<&'r mut dyn FnMut(Progress) -> bool>,
}

impl<'r> Served<'r> {
    /// `tell` says whether to go on.
    pub fn new(
        trained: &'r Trained<'r>,
        limit: usize,
        tell: &'r mut dyn FnMut(Progress) -> bool,
    ) -> Served<'r> {
        Served {
            trained,
            side: RefCell::default(),
            line: RefCell::default(),
            snapshots: RefCell::default(),
            limit,
            tell: RefCell::new(tell),
        }
    }

    /// Why a request makes no sense, before any of it reaches a plan.
    fn fault(&self, request: &Request) -> Option<String> {
        let vocab = self.trained.dataset.vocab_size();
        let is_known = |token: &i32| usize::try_from(*token).is_ok_and(|token| token < vocab);
        for (what, tokens) in [("context", &request.context), ("text", &request.text)] {
            if let Some(at) = tokens.iter().position(|token| !is_known(token)) {
                let token = tokens[at];
                return Some(format!(
                    "token {at} of the {what} is {token}, the vocabulary has 0 to {}",
                    vocab - 1
                ));
            }
        }
        match request.state {
            request::RESET | request::CARRY | request::FORK => {}
            state => return Some(format!("state {state} is not known to this host")),
        }
        (request.code == request::GENERATE && request.number > MOST_GENERATED)
            .then(|| format!("generates {} tokens; ask for at most {MOST_GENERATED}", request.number))
    }

    /// Prices of texts that start from nothing, by their places among the requests.
    fn side_by_side(&self, requests: &[Request]) -> Result<BTreeMap<usize, Response>, Error> {
        let is_apart = |request: &Request| {
            request.code == request::SCORE && request.state == request::RESET && self.fault(request).is_none()
        };
        let mut order: Vec<usize> = (0..requests.len()).filter(|at| is_apart(&requests[*at])).collect();
        let length = |at: &usize| requests[*at].context.len() + requests[*at].text.len();
        order.sort_by_key(|at| (requests[*at].learn, length(at)));
        let mut responses = BTreeMap::new();
        if order.is_empty() {
            return Ok(responses);
        }
        let mut side = self.side.borrow_mut();
        let session = opened(&mut side, self.trained, ROWS)?;
        for same in order.chunk_by(|a, b| requests[*a].learn == requests[*b].learn) {
            for group in same.chunks(ROWS) {
                session.reset(&[true; ROWS])?;
                let mut texts: Vec<Vec<i32>> = group.iter().map(|at| whole(&requests[*at])).collect();
                texts.resize(ROWS, Vec::new());
                let prices = session.read(&texts, mode(&requests[group[0]]))?;
                for (at, prices) in group.iter().zip(prices) {
                    // The first token that a model reads has no price.
                    let of_text = requests[*at].context.len().saturating_sub(1).min(prices.len());
                    responses.insert(*at, scored(&prices[of_text..]));
                }
            }
        }
        Ok(responses)
    }

    /// A request about the line.
    fn on_line(&self, request: &Request) -> Result<Response, Error> {
        if let Some(fault) = self.fault(request) {
            return Err(Error::said(fault));
        }
        let mut line = self.line.borrow_mut();
        let line = opened(&mut line, self.trained, 1)?;
        let before = match request.state {
            request::CARRY => None,
            _ => Some(line.snapshot()?),
        };
        if request.state == request::RESET {
            line.reset(&[true])?;
        }
        let response = self.answer(line, request);
        if let Some(before) = before {
            line.restore(&before)?;
        }
        response
    }

    fn answer(&self, line: &mut Session, request: &Request) -> Result<Response, Error> {
        match request.code {
            request::SCORE => {
                line.read(&[request.context.to_vec()], mode(request))?;
                let prices = line.read(&[request.text.to_vec()], mode(request))?;
                Ok(scored(&prices[0]))
            }
            request::READ => {
                line.read(&[request.text.to_vec()], mode(request))?;
                Ok(nothing())
            }
            request::GENERATE => {
                let options: Value = match request.options.as_str() {
                    "" => json!({}),
                    text => serde_json::from_str(text).map_err(|error| Error::said(error.to_string()))?,
                };
                let temperature = options["temperature"].as_f64().unwrap_or(0.0);
                let stop: Vec<i64> =
                    options["stop"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
                let mut stream = Stream::new(options["seed"].as_u64().unwrap_or(0), "eval", 0);
                line.read(&[request.context.to_vec()], mode(request))?;
                let mut text = Vec::new();
                while (text.len() as u64) < request.number {
                    let logits = line.logits(0);
                    let logits =
                        logits.ok_or_else(|| Error::said("generates after a context of no tokens"))?;
                    let token = crate::run::draw(logits, temperature, &mut stream);
                    if stop.contains(&i64::from(token)) {
                        break;
                    }
                    text.push(token);
                    line.read(&[vec![token]], Mode::Read)?;
                }
                Ok(Response { text: text.into(), ..nothing() })
            }
            request::SNAPSHOT => {
                let mut snapshots = self.snapshots.borrow_mut();
                let number = snapshots.len() as u64 + 1;
                snapshots.insert(number, line.snapshot()?);
                Ok(Response { number, ..nothing() })
            }
            request::RESTORE => {
                let snapshots = self.snapshots.borrow();
                let known = snapshots.get(&request.number);
                let known =
                    known.ok_or_else(|| Error::said(format!("there is no snapshot {}", request.number)))?;
                line.restore(known)?;
                Ok(nothing())
            }
            code => Err(Error::said(format!("request {code} is not known to this host"))),
        }
    }

    fn service(&self, op: u16, asked: &Value) -> Result<Value, Error> {
        let (settings, dataset) = (&self.trained.resolved.settings, self.trained.dataset);
        match op {
            service::FACTS => Ok(json!({
                "vocab": dataset.vocab_size(), "window": settings.train.window, "seed": settings.seed,
                "limit": self.limit,
            })),
            service::TOKENIZE => {
                let text = asked["text"].as_str().unwrap_or_default();
                Ok(json!({ "tokens": dataset.tokenizer().encode(text)? }))
            }
            service::DETOKENIZE => {
                let tokens = asked["tokens"].as_array().into_iter().flatten().filter_map(Value::as_i64);
                let tokens: Vec<i32> = tokens.filter_map(|token| i32::try_from(token).ok()).collect();
                Ok(json!({ "text": dataset.tokenizer().decode(&tokens) }))
            }
            service::TEXTS => {
                let limit = asked["limit"].as_u64().unwrap_or(0) as usize;
                let limit = if limit == 0 { settings.train.eval_windows } else { limit };
                if limit > MOST_TEXTS {
                    return Err(Error::said(format!("asks for {limit} texts; ask for at most {MOST_TEXTS}")));
                }
                let texts = dataset.validation(settings.train.window * settings.train.stream, limit)?;
                Ok(json!({ "texts": texts.iter().map(text).collect::<Vec<_>>() }))
            }
            service::PROGRESS => {
                let count = |key: &str| asked[key].as_u64().unwrap_or(0) as usize;
                let progress = Progress { done: count("done"), total: count("total") };
                let goes_on = (self.tell.borrow_mut())(progress);
                Ok(json!({ "stop": !goes_on }))
            }
            op => Err(Error::said(format!("service {op} is not known to this host"))),
        }
    }
}

/// The session of so many rows, opened if it is not.
fn opened<'s>(
    session: &'s mut Option<Session>,
    trained: &Trained<'_>,
    rows: usize,
) -> Result<&'s mut Session, Error> {
    Ok(match session {
        Some(session) => session,
        None => session.insert(trained.session(rows)?),
    })
}

/// A validation window as evals get it: all its tokens, the last target included.
fn text(window: &data::Window) -> Value {
    let mut tokens = window.tokens.clone();
    tokens.extend(window.targets.last());
    let answers = window.story.iter().flat_map(|story| &story.answers).map(|answer| {
        // Spans of a window index its targets, one behind its tokens.
        json!({
            "start": answer.start + 1, "end": answer.end + 1, "chance": answer.chance,
            "kind": answer.question.name(),
        })
    });
    json!({ "tokens": tokens, "bytes": window.bytes, "answers": answers.collect::<Vec<_>>() })
}

fn whole(request: &Request) -> Vec<i32> {
    request.context.iter().chain(request.text.iter()).copied().collect()
}

fn mode(request: &Request) -> Mode {
    if request.learn == 1 { Mode::Learn } else { Mode::Read }
}

fn nothing() -> Response {
    Response { error: RString::new(), losses: RVec::new(), best: RVec::new(), text: RVec::new(), number: 0 }
}

fn scored(prices: &[Price]) -> Response {
    Response {
        losses: prices.iter().map(|price| price.loss).collect(),
        best: prices.iter().map(|price| u8::from(price.is_best)).collect(),
        ..nothing()
    }
}

fn refusal(error: &Error) -> PluginError {
    PluginError { message: error.to_string().into(), location: RString::new() }
}

impl ModelSession for Served<'_> {
    fn submit(&self, requests: RVec<Request>) -> RResult<RVec<Response>, PluginError> {
        let mut apart = match self.side_by_side(&requests) {
            Ok(responses) => responses,
            Err(error) => return RErr(refusal(&error)),
        };
        let mut responses = RVec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            let response = match apart.remove(&at) {
                Some(response) => Ok(response),
                None => self.on_line(request),
            };
            responses.push(
                response.unwrap_or_else(|error| Response { error: error.to_string().into(), ..nothing() }),
            );
        }
        ROk(responses)
    }
}

impl HostServices for Served<'_> {
    fn call(&self, op: u16, json: RStr<'_>) -> RResult<RString, PluginError> {
        let asked = serde_json::from_str(&json).map_err(|error| Error::said(error.to_string()));
        match asked.and_then(|asked: Value| self.service(op, &asked)) {
            Ok(answer) => ROk(answer.to_string().into()),
            Err(error) => RErr(refusal(&error)),
        }
    }
}
