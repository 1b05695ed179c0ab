// Runs once for each call: the request's body is standard input, standard output is the answer, and
// what is written to standard error is the log.
use serde_json::{json, Value};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Value = serde_json::from_reader(std::io::stdin())?;
    let name = args["name"].as_str().unwrap_or("world");
    eprintln!("greeting {name}");
    println!("{}", json!({ "greeting": format!("Hello, {name}!") }));
    Ok(())
}
