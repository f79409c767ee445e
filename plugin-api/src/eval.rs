//! Evals: what a third party measures of a trained model.
//!
//! An eval gets texts and a tokenizer from the host, asks the model for prices of tokens or for text, and returns metrics
//! with how many items they rest on and an interval. It runs on the host's side of a trained run; the host batches.

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use crate::abi::{request, service, PluginError, Request, Response, ServicesRef, SessionRef};
use crate::{Dims, Fault};

/// A measurement of a trained model.
pub trait Eval {
    /// The metrics, or why there are none.
    fn run(&self, model: &Trained<'_>) -> Result<Vec<Metric>, String>;

    /// What the schema of the options cannot say.
    fn validate(&self, _dims: &Dims) -> Vec<Fault> {
        Vec::new()
    }
}

/// A number with what it rests on; the interval is one of 95 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    pub name: String,
    pub value: f64,
    /// Items.
    pub n: usize,
    pub low: f64,
    pub high: f64,
    /// `bits/byte`, `%`, or empty.
    pub unit: String,
}

/// Standard deviations of a normal distribution that hold 95 % of it.
const Z: f64 = 1.959_963_984_540_054;

impl Metric {
    /// The mean of independent values, with its normal interval.
    pub fn mean(name: &str, values: &[f64], unit: &str) -> Metric {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n.max(1) as f64;
        let spread: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = Z * (spread / (n.max(2) - 1) as f64 / n.max(1) as f64).sqrt();
        Metric { name: name.into(), value: mean, n, low: mean - error, high: mean + error, unit: unit.into() }
    }

    /// The share of right ones, with Wilson's interval, in percent.
    pub fn share(name: &str, right: usize, n: usize) -> Metric {
        let (count, p) = (n.max(1) as f64, right as f64 / n.max(1) as f64);
        let middle = (p + Z * Z / (2.0 * count)) / (1.0 + Z * Z / count);
        let half = Z / (1.0 + Z * Z / count) * (p * (1.0 - p) / count + Z * Z / (4.0 * count * count)).sqrt();
        let percent = |x: f64| 100.0 * x;
        let (low, high) = (percent(middle - half).max(0.0), percent(middle + half).min(100.0));
        Metric { name: name.into(), value: percent(p), n, low, high, unit: "%".into() }
    }
}

/// What a run is.
#[derive(Clone, Debug, Deserialize)]
pub struct Facts {
    /// Vocabulary size V.
    pub vocab: usize,
    /// Tokens of a training window.
    pub window: usize,
    pub seed: u64,
    /// Items that the user wants at most; 0 for all.
    pub limit: usize,
}

/// A validation text.
#[derive(Clone, Debug, Deserialize)]
pub struct Text {
    pub tokens: Vec<i32>,
    /// Bytes of all tokens but the first.
    pub bytes: usize,
    /// Answers to the questions of the stories: `tokens[start..end]`.
    pub answers: Vec<Answer>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    pub start: usize,
    pub end: usize,
    /// Probability of a guess among the candidates.
    pub chance: f64,
    /// `who` or `where`.
    pub kind: String,
}

/// From which state the model answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum From {
    /// Nothing read before.
    Reset = request::RESET,
    /// What was read so far, which goes on.
    Carry = request::CARRY,
    /// What was read so far, which stays as it is.
    Fork = request::FORK,
}

/// A text to be priced after a context.
#[derive(Clone, Debug)]
pub struct Scoring {
    pub context: Vec<i32>,
    pub text: Vec<i32>,
    pub from: From,
    /// Whether memories learn from what is read.
    pub learn: bool,
}

/// What the tokens of a text cost. The first token of all that a model reads has no price: it is not among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Nats of each token.
    pub losses: Vec<f64>,
    /// Whether each had the highest logit.
    pub best: Vec<bool>,
}

/// The host as an eval sees it. One implementation speaks the ABI.
pub trait Host {
    fn submit(&self, requests: Vec<Request>) -> Result<Vec<Response>, String>;
    fn call(&self, op: u16, json: &str) -> Result<String, String>;
}

impl Host for (SessionRef<'_>, ServicesRef<'_>) {
    fn submit(&self, requests: Vec<Request>) -> Result<Vec<Response>, String> {
        self.0.submit(requests.into()).into_result().map(Vec::from).map_err(said)
    }

    fn call(&self, op: u16, json: &str) -> Result<String, String> {
        self.1.call(op, json.into()).into_result().map(String::from).map_err(said)
    }
}

fn said(error: PluginError) -> String {
    error.message.into()
}

/// A trained model with its data.
pub struct Trained<'h> {
    host: &'h dyn Host,
}

impl<'h> Trained<'h> {
    pub fn new(host: &'h dyn Host) -> Trained<'h> {
        Trained { host }
    }

    pub fn facts(&self) -> Result<Facts, String> {
        self.call(service::FACTS, json!({}))
    }

    pub fn tokenize(&self, text: &str) -> Result<Vec<i32>, String> {
        let answer: Value = self.call(service::TOKENIZE, json!({ "text": text }))?;
        serde_json::from_value(answer["tokens"].clone()).map_err(|error| error.to_string())
    }

    pub fn detokenize(&self, tokens: &[i32]) -> Result<String, String> {
        let answer: Value = self.call(service::DETOKENIZE, json!({ "tokens": tokens }))?;
        serde_json::from_value(answer["text"].clone()).map_err(|error| error.to_string())
    }

    /// At most `limit` validation texts of the run's data; 0 for all.
    pub fn texts(&self, limit: usize) -> Result<Vec<Text>, String> {
        let answer: Value = self.call(service::TEXTS, json!({ "limit": limit }))?;
        serde_json::from_value(answer["texts"].clone()).map_err(|error| error.to_string())
    }

    /// Tells the user how far the eval is. False where it should end early.
    pub fn progress(&self, done: usize, total: usize) -> Result<bool, String> {
        let answer: Value = self.call(service::PROGRESS, json!({ "done": done, "total": total }))?;
        Ok(answer["stop"] != json!(true))
    }

    /// Prices of texts, in their order. Those that start from nothing are read side by side.
    pub fn score(&self, scorings: &[Scoring]) -> Result<Vec<Scored>, String> {
        let requests = scorings.iter().map(|scoring| Request {
            code: request::SCORE,
            state: scoring.from as u8,
            learn: scoring.learn.into(),
            context: scoring.context.clone().into(),
            text: scoring.text.clone().into(),
            number: 0,
            options: Default::default(),
        });
        let responses = self.host.submit(requests.collect())?;
        let scored = responses.into_iter().map(|response| match response.error.as_str() {
            "" => Ok(Scored {
                losses: response.losses.into(),
                best: response.best.into_iter().map(|best| best == 1).collect(),
            }),
            error => Err(error.to_string()),
        });
        scored.collect()
    }

    /// Text of at most `tokens` after a context, at `temperature` (0 is greedy), up to the first token of `stop`.
    pub fn generate(
        &self,
        context: &[i32],
        tokens: usize,
        (temperature, stop): (f64, &[i32]),
        (from, learn): (From, bool),
    ) -> Result<Vec<i32>, String> {
        let options = json!({ "temperature": temperature, "stop": stop }).to_string();
        Ok(self.one(request::GENERATE, (from, learn), context, &[], tokens as u64, options)?.text.into())
    }

    /// Reads on in the session's text.
    pub fn read(&self, text: &[i32], learn: bool) -> Result<(), String> {
        self.one(request::READ, (From::Carry, learn), &[], text, 0, String::new()).map(|_| ())
    }

    /// The state of the session's text, to come back to.
    pub fn snapshot(&self) -> Result<u64, String> {
        let response = self.one(request::SNAPSHOT, (From::Carry, false), &[], &[], 0, String::new())?;
        Ok(response.number)
    }

    pub fn restore(&self, snapshot: u64) -> Result<(), String> {
        self.one(request::RESTORE, (From::Carry, false), &[], &[], snapshot, String::new()).map(|_| ())
    }

    fn one(
        &self,
        code: u16,
        (from, learn): (From, bool),
        context: &[i32],
        text: &[i32],
        number: u64,
        options: String,
    ) -> Result<Response, String> {
        let request = Request {
            code,
            state: from as u8,
            learn: learn.into(),
            context: context.to_vec().into(),
            text: text.to_vec().into(),
            number,
            options: options.into(),
        };
        let responses = self.host.submit(vec![request])?;
        let response = responses.into_iter().next().ok_or("the host gave no response")?;
        if response.error.is_empty() {
            Ok(response)
        } else {
            Err(response.error.into())
        }
    }

    fn call<T: for<'d> Deserialize<'d>>(&self, op: u16, json: Value) -> Result<T, String> {
        let answer = self.host.call(op, &json.to_string())?;
        serde_json::from_str(&answer).map_err(|error| error.to_string())
    }
}
