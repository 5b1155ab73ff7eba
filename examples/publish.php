<?php
// Publishes each line of the standard input as one event, in order and each exactly once:
//
//   php examples/publish.php http://127.0.0.1:8080/channels/greetings
//
// A publish without a usable answer is repeated with the same Idempotency-Key, so the origin stores
// the event once. The origin remembers a key for ten minutes (--idempotency-age); the program gives
// up before that.

declare(strict_types=1);

const GIVE_UP_S = 540;

function publish(string $url, string $data): string
{
    $context = stream_context_create(['http' => [
        'method' => 'POST',
        'header' => ['Idempotency-Key: ' . bin2hex(random_bytes(16)), 'Content-Type: text/plain'],
        'content' => $data,
        'timeout' => 10,
        'ignore_errors' => true, // a refusal has a body that says why
    ]]);
    $giveUp = time() + GIVE_UP_S;
    for ($wait = 0.1; ; $wait = min(2 * $wait, 10)) {
        [$status, $text] = [503, 'no answer'];
        if ($answer = @fopen($url, 'r', false, $context)) {
            $status = (int) explode(' ', stream_get_meta_data($answer)['wrapper_data'][0])[1];
            $text = stream_get_contents($answer);
            $id = json_decode($text)?->id ?? null;
            if ($status < 300 && $id !== null) {
                return $id;
            }
        }
        $isTemporary = $status < 300 || $status >= 500 || $status === 408 || $status === 429;
        if (!$isTemporary || time() > $giveUp) {
            throw new RuntimeException("$status $text");
        }
        // A random part keeps many publishers from coming back at the same instant.
        usleep((int) ($wait * random_int(500_000, 1_500_000)));
    }
}

while (($line = fgets(STDIN)) !== false) {
    echo publish($argv[1], rtrim($line, "\n")), "\n";
}
