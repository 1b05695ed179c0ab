using System;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Runtime.Loader;

namespace Brasa
{
    /// <summary>
    /// An action of OpenWhisk: a public method, of a class that can be made without arguments, that takes and returns what
    /// Newtonsoft.Json has for an object or a list, or returns a task of it. An object of the class is made for each call.
    /// </summary>
    sealed class Action : Function
    {
        const string Linq = "Newtonsoft.Json.Linq.";

        readonly string name;
        readonly ConstructorInfo make; // null: the method is static
        readonly MethodInfo method, print;
        readonly Type parameter, list, single; // of the method; JArray and JObject
        readonly Func<string, object> parse;
        readonly object[] plain; // how print is called
        readonly Func<object, object> awaited; // null: the method is not asynchronous

        /// <summary>Loads the code to "Assembly::Namespace.Type::Method".</summary>
        internal static Action Load(Spec spec)
        {
            string[] parts = spec.Handler.Split(new[] { "::" }, StringSplitOptions.None);
            if (parts.Length != 3 || parts.Any(string.IsNullOrWhiteSpace)) throw new Fault("main must have the form \"Assembly::Namespace.Type::Method\", and it is \"" + spec.Handler + "\"");
            string file = Path.Combine(spec.Code, parts[0] + ".dll");
            if (!File.Exists(file)) throw new Fault("the code has no assembly " + parts[0] + ".dll at its top");
            Resolve(spec.Code, file);
            Assembly assembly = Assembly.LoadFrom(file);
            Type type = assembly.GetType(parts[1]) ?? throw new Fault(parts[0] + ".dll has no type " + parts[1]);
            MethodInfo[] found = type.GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.Static | BindingFlags.FlattenHierarchy).Where(m => m.Name == parts[2]).ToArray();
            if (found.Length == 0) throw new Fault(parts[1] + " has no public method " + parts[2]);
            MethodInfo[] fit = found.Where(m => m.GetParameters().Length == 1 && !m.IsGenericMethod).ToArray();
            if (fit.Length == 0) throw new Fault(parts[1] + "." + parts[2] + " must take one " + Linq + "JObject");
            if (fit.Length > 1) throw new Fault(parts[1] + " has " + fit.Length + " methods " + parts[2] + "; an action is the only one of its name");
            ConstructorInfo make = fit[0].IsStatic ? null : type.GetConstructor(Type.EmptyTypes)
                ?? throw new Fault(parts[1] + " has no public constructor without parameters");
            // The code of a type's own begins to run here, and not in the midst of a call.
            System.Runtime.CompilerServices.RuntimeHelpers.RunClassConstructor(type.TypeHandle);
            return new Action(parts[1] + "." + parts[2], make, fit[0]);
        }

        Action(string name, ConstructorInfo make, MethodInfo method)
        {
            this.name = name;
            this.make = make;
            this.method = method;
            parameter = method.GetParameters()[0].ParameterType;
            if (parameter != typeof(object) && parameter.Namespace + "." != Linq) throw new Fault(name + " must take one " + Linq + "JObject, and it takes a " + parameter.FullName);
            Assembly newtonsoft = parameter == typeof(object) ? Assembly.Load("Newtonsoft.Json") : parameter.Assembly;
            single = newtonsoft.GetType(Linq + "JObject", true);
            list = newtonsoft.GetType(Linq + "JArray", true);
            Type token = newtonsoft.GetType(Linq + "JToken", true);
            parse = (Func<string, object>)token.GetMethod("Parse", new[] { typeof(string) }).CreateDelegate(typeof(Func<string, object>));
            print = token.GetMethods().First(m => m.Name == "ToString" && m.GetParameters().Length == 2);
            plain = new object[] { Enum.ToObject(newtonsoft.GetType("Newtonsoft.Json.Formatting", true), 0), Array.CreateInstance(newtonsoft.GetType("Newtonsoft.Json.JsonConverter", true), 0) };
            awaited = Awaiting(method.ReturnType);
        }

        /// <summary>How what a method of that type has returned is waited for; null: it isn't.</summary>
        static Func<object, object> Awaiting(Type returned)
        {
            MethodInfo begin = returned.GetMethod("GetAwaiter", Type.EmptyTypes);
            if (begin == null) return null;
            MethodInfo task = returned.GetMethod("AsTask", Type.EmptyTypes); // of a ValueTask, whose awaiter may not be asked early
            if (task != null)
            {
                begin = task.ReturnType.GetMethod("GetAwaiter", Type.EmptyTypes);
                MethodInfo end = begin.ReturnType.GetMethod("GetResult", Type.EmptyTypes);
                return v => end.Invoke(begin.Invoke(task.Invoke(v, null), null), null);
            }
            MethodInfo wait = begin.ReturnType.GetMethod("GetResult", Type.EmptyTypes);
            return v => v == null ? null : wait.Invoke(begin.Invoke(v, null), null);
        }

        internal override object Call(string input)
        {
            object value = parse(input);
            if (!parameter.IsInstanceOfType(value)) throw new Fault(name + " takes a " + parameter.Name + ", and was called with a " + value.GetType().Name);
            object result = method.Invoke(make?.Invoke(null), new[] { value });
            return awaited == null ? result : awaited(result);
        }

        internal override string Answer(object value, out bool failed)
        {
            failed = false;
            if (value == null) throw new Fault("the action returned null, and no dictionary or array");
            if (single.IsInstanceOfType(value)) failed = single.GetMethod("Property", new[] { typeof(string) }).Invoke(value, new object[] { "error" }) != null;
            else if (!list.IsInstanceOfType(value)) throw new Fault("the action did not return a dictionary or array, so its response is not valid: it returned a " + value.GetType().FullName);
            return (string)print.Invoke(value, plain);
        }

        /// <summary>
        /// Says where assemblies are that the runtime does not bring: as the archive's .deps.json has it, in its top, and beside
        /// the runtime: OpenWhisk's own has the web's framework and Newtonsoft.Json.
        /// </summary>
        static void Resolve(string code, string file)
        {
            var published = new AssemblyDependencyResolver(file);
            string core = Path.GetDirectoryName(typeof(object).Assembly.Location);
            string root = Path.GetFullPath(Path.Combine(core, "..", "..", ".."));
            string Near(string name)
            {
                string web = Path.Combine(root, "shared", "Microsoft.AspNetCore.App", Path.GetFileName(core), name);
                if (File.Exists(web) || name != "Newtonsoft.Json.dll") return web;
                string sdks = Path.Combine(root, "sdk");
                return Directory.Exists(sdks) ? Directory.GetDirectories(sdks).Select(d => Path.Combine(d, name)).LastOrDefault(File.Exists) ?? web : web;
            }
            AssemblyLoadContext.Default.Resolving += (context, wanted) =>
            {
                string name = wanted.Name + ".dll";
                string path = new[] { published.ResolveAssemblyToPath(wanted), Path.Combine(code, name), Near(name) }.FirstOrDefault(p => p != null && File.Exists(p));
                return path == null ? null : context.LoadFromAssemblyPath(path);
            };
            AssemblyLoadContext.Default.ResolvingUnmanagedDll += (assembly, wanted) =>
            {
                string path = published.ResolveUnmanagedDllToPath(wanted);
                return path == null ? IntPtr.Zero : System.Runtime.InteropServices.NativeLibrary.Load(path);
            };
        }
    }
}
