//! `host bisect`.

use std::path::Path;
use std::process::ExitCode;

use engine::Error;
use engine::bisect::{Finding, Report, bisect};
use engine::plugins::Registry;

use crate::output;

/// Exit code 1 says that something was found.
pub fn run(folder: &Path, step: u64, tolerance: f64) -> Result<ExitCode, Error> {
    let report = bisect(folder, step, tolerance, &Registry::discover())?;
    output::print(&text(&report))?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report) -> String {
    let from = match report.from {
        0 => "initial values".into(),
        step => format!("the checkpoint of step {step}"),
    };
    let mut text = format!("step {}: {} nodes compared, replayed from {from}\n", report.step, report.nodes);
    if let Some(finding) = &report.found {
        text += &format!("first divergence above {:e}\n{}", report.tolerance, describe(finding));
    } else {
        text += &format!("no divergence above {:e}", report.tolerance);
        let worst = report.worst.as_ref().filter(|worst| worst.error > 0.0);
        text += &worst.map_or("\n".into(), |worst| {
            format!(": worst was {:.1e} at {} in {}\n", worst.error, worst.node, scope(worst))
        });
    }
    if let Some(finding) = &report.non_finite {
        text += &format!("first value that is not finite\n{}", describe(finding));
    }
    text
}

fn scope(finding: &Finding) -> &str {
    if finding.scope.is_empty() { "the top level" } else { &finding.scope }
}

fn describe(finding: &Finding) -> String {
    let mut text = format!("  scope     {} (plan {})\n", scope(finding), finding.plan);
    text += &format!("  node      {}\n", finding.node);
    if let Some(parameter) = &finding.parameter {
        text += &format!("  parameter {parameter}\n");
    }
    for operand in &finding.operands {
        text += &format!("  operand   {}", operand.node);
        let (least, most) = operand.range;
        if least <= most {
            text += &format!(" from {least:.6e} to {most:.6e}");
        }
        if operand.non_finite > 0 {
            text += &format!(", {} not finite", operand.non_finite);
        }
        text += "\n";
    }
    let Finding { element, expected, actual, exact, error, .. } = finding;
    text +=
        &format!("  element   {element}: {actual:e} on the device, {expected:e} from its operands in f64\n");
    text + &format!(
        "  error     {error:.1e} of the tensor's scale; the whole step in f64 has {exact:e} there\n"
    )
}
