interface Args {
  name?: string;
}

// Called once per call with the input, parsed from JSON; what it returns, or resolves to, is the
// answer.
export async function main(args: Args): Promise<{ greeting: string }> {
  const name = args.name ?? "world";
  console.log("greeting", name); // goes to the logs: brasa logs
  return { greeting: `Hello, ${name}!` };
}
