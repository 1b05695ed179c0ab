use serde_json::{json, Error, Value};
use std::sync::atomic::{AtomicU32, Ordering};

static CALLS: AtomicU32 = AtomicU32::new(0);

pub fn main(args: Value) -> Result<Value, Error> {
    let calls = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
    Ok(match args["do"].as_str().unwrap_or("echo") {
        "echo" => {
            println!("out ✓");
            eprintln!("err ✓");
            args
        }
        "env" => {
            let mut out = json!({});
            for name in args["names"].as_array().unwrap() {
                let name = name.as_str().unwrap();
                out[name] = std::env::var(name).map(Value::from).unwrap_or(Value::Null);
            }
            out
        }
        "load" => json!({ "loaded": std::env::var("AT_LOAD").ok(), "unicode": "héllo ✓ 你好" }),
        "count" => json!({ "calls": calls }),
        "error" => json!({ "error": { "code": 7, "text": "mine" } }),
        "fail" => return Err(serde_json::from_str::<Value>("{").unwrap_err()),
        "exit" => std::process::exit(3),
        "hang" => {
            std::thread::sleep(std::time::Duration::from_secs(600));
            json!({})
        }
        "text" => json!("just text"),
        "list" => json!([1, "two"]),
        "nothing" => Value::Null,
        "big" => json!({ "text": "x".repeat(args["size"].as_u64().unwrap() as usize) }),
        "memory" => {
            let mut hold: Vec<Vec<u8>> = Vec::new();
            loop {
                hold.push(vec![1; 8 << 20]);
            }
        }
        _ => json!({}),
    })
}

pub fn niam(_: Value) -> Result<Value, Error> {
    Ok(json!({ "entry": "niam" }))
}
