// A receiver for walhook's webhooks, for ASP.NET Core on .NET 8 and later, without packages.
//
//   WEBHOOK_SECRETS="whsec_..." dotnet run --urls http://127.0.0.1:8080
using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Threading.Channels;

// More than one during a rotation.
var secrets = (Environment.GetEnvironmentVariable("WEBHOOK_SECRETS") ?? "")
    .Split(' ', StringSplitOptions.RemoveEmptyEntries)
    .Select(secret => Convert.FromBase64String(secret.StartsWith("whsec_", StringComparison.Ordinal) ? secret["whsec_".Length..] : secret))
    .ToArray();

// In memory to keep the example short. Keep it in your database: a table whose webhook_id is unique, with
// INSERT ... ON CONFLICT DO NOTHING, and answer only when the row is committed.
var seen = new ConcurrentDictionary<string, bool>();
var inbox = Channel.CreateUnbounded<byte[]>();

var app = WebApplication.CreateBuilder(args).Build();

app.MapPost("/hook", async (HttpRequest request) =>
{
    if (request.ContentLength is null or > 65536) return Results.StatusCode(413);
    using var buffer = new MemoryStream();
    await request.Body.CopyToAsync(buffer);
    var body = buffer.ToArray();
    if (!Verify(request.Headers, body)) return Results.Unauthorized();
    if (seen.TryAdd(request.Headers["webhook-id"].ToString(), true)) // otherwise it is a repeat
        inbox.Writer.TryWrite(body);
    return Results.NoContent(); // the work is done afterwards
});

// Handles messages one after the other, in the order in which they arrived. Retries one that fails, so that no later
// one overtakes it.
_ = Task.Run(async () =>
{
    await foreach (var body in inbox.Reader.ReadAllAsync())
    {
        for (var done = false; !done;)
        {
            try
            {
                using var message = JsonDocument.Parse(body);
                Handle(message.RootElement);
                done = true;
            }
            catch (Exception error)
            {
                Console.Error.WriteLine(error);
                await Task.Delay(TimeSpan.FromSeconds(1));
            }
        }
    }
});

app.Run();

// Was a signature made with one of our secrets in the last five minutes? The body is the raw bytes.
bool Verify(IHeaderDictionary headers, byte[] body)
{
    var id = headers["webhook-id"].ToString();
    var timestamp = headers["webhook-timestamp"].ToString();
    if (id == "" || !long.TryParse(timestamp, out var seconds)) return false;
    if (Math.Abs(DateTimeOffset.UtcNow.ToUnixTimeSeconds() - seconds) > 300) return false;
    byte[] signed = [.. Encoding.UTF8.GetBytes($"{id}.{timestamp}."), .. body];
    foreach (var secret in secrets)
    {
        var want = Encoding.UTF8.GetBytes("v1," + Convert.ToBase64String(HMACSHA256.HashData(secret, signed)));
        foreach (var got in headers["webhook-signature"].ToString().Split(' '))
            if (CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(got), want)) return true;
    }
    return false;
}

// Where your work goes. GetRawText keeps large integers exact.
static void Handle(JsonElement message) =>
    Console.WriteLine($"{message.GetProperty("EventType").GetString()} {message.GetProperty("Data").GetProperty("ResponseId").GetRawText()}");
