<?php
// A receiver for walhook's webhooks that keeps its inbox in a database, through PDO, for PHP 8.1 and later. Run it behind a web
// server or, to try it:
//
//   WEBHOOK_SECRETS="whsec_..." INBOX_DSN=sqlite:inbox.db php -S 127.0.0.1:8080 receiver.php
//
// For PostgreSQL, set a DSN such as pgsql:host=db;dbname=app. A worker (php receiver.php work) handles the messages.
declare(strict_types=1);

// Was a signature made with one of our secrets in the last five minutes? The body is the raw bytes.
function verify(string $id, string $timestamp, string $signatures, string $body): bool
{
    if ($id === '' || !ctype_digit($timestamp) || abs(time() - (int) $timestamp) > 300) {
        return false;
    }
    // More than one secret during a rotation.
    foreach (explode(' ', (string) getenv('WEBHOOK_SECRETS')) as $secret) {
        $key = base64_decode(preg_replace('/^whsec_/', '', $secret), true);
        if ($key === false || $key === '') {
            continue;
        }
        $want = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
        foreach (explode(' ', $signatures) as $got) {
            if (hash_equals($want, $got)) {
                return true;
            }
        }
    }
    return false;
}

function inbox(): PDO
{
    $db = new PDO(getenv('INBOX_DSN') ?: 'sqlite:inbox.db', null, null, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_TIMEOUT => 30]);
    $seq = $db->getAttribute(PDO::ATTR_DRIVER_NAME) === 'pgsql' ? 'bigint generated always as identity' : 'integer';
    $db->exec("create table if not exists webhook_inbox (seq $seq primary key, webhook_id text not null unique, body text not null, done_at timestamp)");
    return $db;
}

// Where your work goes.
function handle(array $message): void
{
    echo $message['EventType'], ' ', $message['Data']['ResponseId'], "\n";
}

// Handles the oldest message that is not done. Returns whether there was one.
function handleOldest(PDO $db): bool
{
    $row = $db->query('select seq, body from webhook_inbox where done_at is null order by seq limit 1')->fetch(PDO::FETCH_ASSOC);
    if ($row === false) {
        return false;
    }
    handle(json_decode($row['body'], true, 8, JSON_THROW_ON_ERROR | JSON_BIGINT_AS_STRING));
    $db->prepare('update webhook_inbox set done_at = current_timestamp where seq = ?')->execute([$row['seq']]);
    return true;
}

if (PHP_SAPI === 'cli') { // the worker: one after the other, in the order in which they arrived
    $db = inbox();
    while (true) {
        try {
            if (!handleOldest($db)) {
                usleep(200_000);
            }
        } catch (Throwable $error) { // retries the message, so that no later one overtakes it
            error_log((string) $error);
            sleep(1);
        }
    }
}

$body = (string) file_get_contents('php://input', length: 65537);
$id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
if (!verify($id, $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '', $body)) {
    http_response_code(401);
    exit;
}
// A repeat has the same webhook-id and is dropped here. An exception is a 500, and walhook retries.
inbox()->prepare('insert into webhook_inbox (webhook_id, body) values (?, ?) on conflict (webhook_id) do nothing')->execute([$id, $body]);
http_response_code(204);
