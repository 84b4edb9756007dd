// Package callback sends one signed message once, and says what came of it.
//
//	sender := callback.NewSender(callback.Options{Version: "1.4.0"})
//	defer sender.Close()
//	result := sender.Send(ctx, message)
//	switch result.Verdict {
//	case callback.Delivered:   // acknowledged
//	case callback.Retry:       // again, when the Schedule says
//	case callback.Gone:        // the receiver asked to stop
//	case callback.Refused:     // the guard forbids this address
//	case callback.Interrupted: // cut short by ctx; does not count
//	}
//
// What makes an attempt, in order: the URL is judged by [guard.Policy], the
// message is signed for this very moment ([signature.Sign]), and sent by one
// request through a guarded dial. Attempts are spread over days and survive
// restarts, so nothing here waits and tries again: the store keeps the message,
// [Schedule] says when it is due next, and [Result.Host] whether its host is
// worth a try before.
//
// The receiver is a stranger, and so is whoever named it. Redirects are not
// followed, no proxy is read from the environment, nothing is decompressed, at
// most 32 KiB of headers and 16 KiB of body are read, and the whole attempt,
// body included, has one deadline. The status is the answer: it counts once the
// headers are there, whatever the body does then, and even if the receiver did
// not read all of ours. What is kept of an answer is bounded, made
// printable and cleared of the credentials we sent; an error becomes a category
// and a fixed text, for Go's own error texts repeat the URL with its query.
//
// One thing escapes: net/http writes a line to the standard logger, quoted, if
// a receiver sends bytes after its answer. A program that keeps strangers out
// of its log directs that logger elsewhere.
package callback
