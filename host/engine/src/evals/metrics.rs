//! Metrics as an eval gives them: read with suspicion, since they are shown, recorded and compared.

use plugin_api::Metric;
use serde_json::Value;

/// The metrics of a JSON list, or what is wrong with it in words that follow the eval's name.
pub fn read(json: &str) -> Result<Vec<Metric>, String> {
    let list: Vec<Value> =
        serde_json::from_str(json).map_err(|error| format!("gave no list of metrics ({error})"))?;
    if list.is_empty() {
        return Err("gave no metrics".into());
    }
    let mut metrics: Vec<Metric> = Vec::new();
    for value in list {
        let name = value["name"].as_str().unwrap_or_default().to_string();
        let is_plain = |text: &str| !text.chars().any(char::is_control);
        if name.is_empty() || !is_plain(&name) {
            return Err(format!("gave a metric whose name {name:?} is none; use letters"));
        }
        // JSON has no word for them: what is not finite arrives as null.
        if let Some(part) = ["value", "low", "high"].into_iter().find(|part| value[*part].is_null()) {
            return Err(format!("gave a metric {name} whose {part} is not a finite number"));
        }
        let metric: Metric = serde_json::from_value(value)
            .map_err(|error| format!("gave a metric {name} that is none ({error})"))?;
        if !is_plain(&metric.unit) {
            return Err(format!("gave a metric {name} whose unit {:?} is none; use letters", metric.unit));
        }
        if metrics.iter().any(|other| other.name == name) {
            return Err(format!("gave two metrics {name}"));
        }
        metrics.push(metric);
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(metrics: &[Metric]) -> String {
        read(&serde_json::to_string(metrics).unwrap()).unwrap_err()
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let good = Metric::mean("good", &[1.0, 2.0], "%");
        assert_eq!(read(&serde_json::to_string(&vec![good.clone()]).unwrap()), Ok(vec![good.clone()]));
        assert_eq!(refused(&[]), "gave no metrics");
        assert_eq!(refused(&[good.clone(), good.clone()]), "gave two metrics good");
        let nan = Metric { high: f64::NAN, ..good.clone() };
        assert_eq!(refused(&[nan]), "gave a metric good whose high is not a finite number");
        let infinite = Metric { value: f64::INFINITY, ..good.clone() };
        assert_eq!(refused(&[infinite]), "gave a metric good whose value is not a finite number");
        assert!(refused(&[Metric { name: String::new(), ..good.clone() }]).contains("name \"\" is none"));
        assert!(refused(&[Metric { unit: "\u{1b}[31m".into(), ..good }]).contains("unit \"\\u{1b}[31m\""));
        assert!(read("{}").unwrap_err().starts_with("gave no list of metrics"));
        assert!(read("[1]").unwrap_err().contains("name \"\""));
    }
}
