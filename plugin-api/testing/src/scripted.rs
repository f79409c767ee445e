//! A model whose every price a test writes down, for the tests of evals.
//!
//! It keeps one text as a session does: requests start from nothing, go on with it, or leave it as it is. Nothing is
//! learned. Tokens are bytes, and a request that makes no sense is refused as by a host.

use std::cell::RefCell;

use plugin_api::Trained;
use plugin_api::abi::{Request, Response, request, service};
use plugin_api::eval::Host;
use plugin_api::serde_json::{Value, from_str, json};

/// Ids are bytes.
const VOCAB: usize = 256;

/// A price in nats of a token after those before it, and whether no other token is more probable.
type Price<'p> = &'p dyn Fn(&[i32], i32) -> (f64, bool);

/// A model and its held-out texts.
pub struct Scripted<'p> {
    texts: Vec<String>,
    price: Price<'p>,
    line: RefCell<Vec<i32>>,
    snapshots: RefCell<Vec<Vec<i32>>>,
}

impl<'p> Scripted<'p> {
    /// `texts` are the run's validation texts, each as its bytes; they have no questions.
    pub fn new(texts: &[&str], price: Price<'p>) -> Scripted<'p> {
        let texts = texts.iter().map(|text| text.to_string()).collect();
        Scripted { texts, price, line: RefCell::default(), snapshots: RefCell::default() }
    }

    /// What `Eval::run` takes.
    pub fn trained(&self) -> Trained<'_> {
        Trained::new(self)
    }

    fn answer(&self, asked: &Request) -> Response {
        let mut response = Response {
            error: Default::default(),
            losses: Default::default(),
            best: Default::default(),
            text: Default::default(),
            number: 0,
        };
        let before = self.line.borrow().clone();
        if asked.state == request::RESET {
            self.line.borrow_mut().clear();
        }
        let mut line = self.line.borrow_mut();
        match asked.code {
            request::SCORE => {
                line.extend(&asked.context);
                for token in &asked.text {
                    // The first token of all has no price.
                    if !line.is_empty() {
                        let (loss, best) = (self.price)(&line, *token);
                        response.losses.push(loss);
                        response.best.push(best.into());
                    }
                    line.push(*token);
                }
            }
            request::READ => line.extend(&asked.text),
            request::GENERATE => {
                line.extend(&asked.context);
                let options: Value = from_str(&asked.options).unwrap_or_default();
                let stop = options["stop"].as_array().cloned().unwrap_or_default();
                for _ in 0..asked.number {
                    let price = |token: &i32| (self.price)(&line, *token).0;
                    let next = (0..VOCAB as i32).min_by(|a, b| price(a).total_cmp(&price(b))).unwrap_or(0);
                    if stop.contains(&json!(next)) {
                        break;
                    }
                    response.text.push(next);
                    line.push(next);
                }
            }
            request::SNAPSHOT => {
                self.snapshots.borrow_mut().push(line.clone());
                response.number = self.snapshots.borrow().len() as u64;
            }
            request::RESTORE => match self.snapshots.borrow().get(asked.number.wrapping_sub(1) as usize) {
                Some(known) => line.clone_from(known),
                None => response.error = format!("there is no snapshot {}", asked.number).into(),
            },
            code => response.error = format!("request {code} is not known").into(),
        }
        if asked.state != request::CARRY {
            *line = before;
        }
        response
    }
}

impl Host for Scripted<'_> {
    fn submit(&self, requests: Vec<Request>) -> Result<Vec<Response>, String> {
        Ok(requests.iter().map(|request| self.answer(request)).collect())
    }

    fn call(&self, op: u16, json: &str) -> Result<String, String> {
        let asked: Value = from_str(json).map_err(|error| error.to_string())?;
        let bytes = |text: &str| text.bytes().map(i32::from).collect::<Vec<i32>>();
        let answer = match op {
            service::FACTS => json!({ "vocab": VOCAB, "window": 64, "seed": 1, "limit": 0 }),
            service::TOKENIZE => json!({ "tokens": bytes(asked["text"].as_str().unwrap_or_default()) }),
            service::DETOKENIZE => {
                let ids = asked["tokens"].as_array().into_iter().flatten().filter_map(Value::as_u64);
                let bytes: Vec<u8> = ids.filter_map(|id| u8::try_from(id).ok()).collect();
                json!({ "text": String::from_utf8_lossy(&bytes) })
            }
            service::TEXTS => {
                let limit = asked["limit"].as_u64().filter(|limit| *limit > 0).unwrap_or(u64::MAX);
                let texts = self.texts.iter().take(usize::try_from(limit).unwrap_or(usize::MAX));
                let texts = texts.map(|text| {
                    json!({ "tokens": bytes(text), "bytes": text.len().saturating_sub(1), "answers": [] })
                });
                json!({ "texts": texts.collect::<Vec<Value>>() })
            }
            service::PROGRESS => json!({ "stop": false }),
            op => return Err(format!("service {op} is not known")),
        };
        Ok(answer.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::eval::{From, Scoring};

    #[test]
    fn a_text_goes_on_where_it_is_asked_to() {
        // Right is the letter after the last one.
        let price = |before: &[i32], token: i32| match before.last() == Some(&(token - 1)) {
            true => (0.0, true),
            false => (1.0, false),
        };
        let scripted = Scripted::new(&["abd", "x"], &price);
        let model = scripted.trained();
        let text = model.tokenize("abd").unwrap();
        assert_eq!(model.texts(1).unwrap()[0].tokens, text);
        let scoring = |from| Scoring { context: Vec::new(), text: text.clone(), from, learn: false };
        let scored = model.score(&[scoring(From::Reset)]).unwrap();
        assert_eq!((&scored[0].losses[..], &scored[0].best[..]), (&[0.0, 1.0][..], &[true, false][..]));

        model.read(&[96], false).unwrap();
        let snapshot = model.snapshot().unwrap();
        assert_eq!(model.score(&[scoring(From::Fork)]).unwrap()[0].losses, [0.0, 0.0, 1.0]);
        let next = model.generate(&[], 9, (0.0, &[100]), (From::Carry, false)).unwrap();
        assert_eq!(model.detokenize(&next).unwrap(), "abc");
        assert_eq!(model.score(&[scoring(From::Fork)]).unwrap()[0].losses, [1.0, 0.0, 1.0]);
        model.restore(snapshot).unwrap();
        assert_eq!(model.score(&[scoring(From::Fork)]).unwrap()[0].losses, [0.0, 0.0, 1.0]);
        assert_eq!(model.restore(9).unwrap_err(), "there is no snapshot 9");
    }
}
