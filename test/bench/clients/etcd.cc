/*-------------------------------------------------------------------------
 *
 * etcd.cc
 *	  The benchmark's client of etcd: leases, and the locks that its server
 *	  builds on them.
 *
 * A thread has a completion queue of its own and drives its clients by what
 * comes out of that; nothing is shared between threads.  A client has a
 * connection of its own and one operation under way at a time.  Its lease is
 * granted before the gate and revoked at the end, which deletes whatever key
 * went with it.
 *
 *-------------------------------------------------------------------------
 */
#include "frame.h"

#include <etcd.grpc.pb.h>
#include <etcd_lock.grpc.pb.h>
#include <grpcpp/grpcpp.h>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

namespace
{

using etcdserverpb::Lease;
using v3lockpb::Lock;

/* Seconds that a lease outlives the run: nothing but a renewal keeps it. */
constexpr int64_t margin = 60;

/*
 * Operations of each client before the gate.  Locks have fewer: a hand-over may
 * take 0.1 s, as the server looks after new waiters that often.
 */
constexpr int warm_up_renewals = WARM_UP_OPERATIONS;
constexpr int warm_up_locks = 5;

/* No lock of another run has a name of this one's. */
std::string run;

void
Check(const grpc::Status &status, const char *what)
{
	if (!status.ok())
		Fail("could not %s: %s (code %d)", what, status.error_message().c_str(),
			 (int) status.error_code());
}

/*
 * Otherwise channels to one address would share a connection.  What a channel
 * does for a call beyond making it is switched off, so that it costs the server's
 * processors as little as can be.
 */
std::shared_ptr<grpc::Channel>
Connect()
{
	grpc::ChannelArguments arguments;

	arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
	arguments.SetInt(GRPC_ARG_MINIMAL_STACK, 1);
	arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
	arguments.SetInt(GRPC_ARG_ENABLE_CHANNELZ, 0);
	arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
	arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
	return grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(),
									 arguments);
}

/*
 * One connection and its lease.  Begin starts an operation.  Whenever the client
 * comes out of the queue a step of that is done; Answered takes the next one, or
 * says that the operation is complete.
 */
class Client
{
  public:
	int64_t		began = 0;
	int			warm = 0;		/* operations before the gate */

	Client(int number_, grpc::CompletionQueue *queue_);
	virtual ~Client() = default;

	void		Begin();
	virtual bool Answered(bool ok) = 0;
	virtual void End();

  protected:
	const int	number;
	grpc::CompletionQueue *const queue;
	const std::shared_ptr<grpc::Channel> channel;
	const std::unique_ptr<Lease::Stub> leases;
	int64_t		lease;

	virtual void Send() = 0;
};

Client::Client(int number_, grpc::CompletionQueue *queue_)
	: number(number_), queue(queue_), channel(Connect()), leases(Lease::NewStub(channel))
{
	grpc::ClientContext context;
	etcdserverpb::LeaseGrantRequest request;
	etcdserverpb::LeaseGrantResponse response;

	request.set_ttl((options.ttl + 999) / 1000 + (int64_t) options.seconds + margin);
	Check(leases->LeaseGrant(&context, request, &response), "grant a lease");
	lease = response.id();
}

void
Client::Begin()
{
	began = Now();
	Send();
}

void
Client::End()
{
	grpc::ClientContext context;
	etcdserverpb::LeaseRevokeRequest request;
	etcdserverpb::LeaseRevokeResponse response;

	request.set_id(lease);
	Check(leases->LeaseRevoke(&context, request, &response), "revoke a lease");
}

/* An operation is one message on a stream that stays open, and its answer. */
class Renewer : public Client
{
  public:
	Renewer(int number_, grpc::CompletionQueue *queue_);
	bool		Answered(bool ok) override;
	void		End() override;

  private:
	grpc::ClientContext context;
	etcdserverpb::LeaseKeepAliveRequest request;
	etcdserverpb::LeaseKeepAliveResponse response;
	std::unique_ptr<grpc::ClientAsyncReaderWriter<etcdserverpb::LeaseKeepAliveRequest,
												  etcdserverpb::LeaseKeepAliveResponse>>
				stream;
	int			under_way = 0;	/* of sending and receiving */

	void		Send() override;
	void		Finish();
};

Renewer::Renewer(int number_, grpc::CompletionQueue *queue_) : Client(number_, queue_)
{
	/* The stream begins with its first message, and says nothing of its own. */
	context.set_initial_metadata_corked(true);
	stream = leases->AsyncLeaseKeepAlive(&context, queue, nullptr);
	request.set_id(lease);
}

void
Renewer::Send()
{
	under_way = 2;
	stream->Read(&response, this);
	stream->Write(request, this);
}

/* The answer may be here before the queue tells that the message went off. */
bool
Renewer::Answered(bool ok)
{
	if (!ok)
	{
		Finish();
		Fail("the stream of keep-alives ended");
	}
	if (--under_way > 0)
		return false;
	if (response.id() != lease || response.ttl() <= 0)
		Fail("lease %lld was not renewed", (long long) lease);
	return true;
}

/* Nobody else's events are of interest any more: this run is over, or failed. */
void
Renewer::Finish()
{
	grpc::Status status;
	void	   *tag;
	bool		ok;

	stream->Finish(&status, &status);
	while (queue->Next(&tag, &ok) && tag != &status)
		;
	Check(status, "renew a lease");
}

void
Renewer::End()
{
	stream->WritesDone(nullptr);
	Finish();
	Client::End();
}

/* An operation is a lock and its unlock, one after the other. */
class Locker : public Client
{
  public:
	Locker(int number_, grpc::CompletionQueue *queue_);
	bool		Answered(bool ok) override;

  private:
	const bool	handover;
	const std::unique_ptr<Lock::Stub> locks;
	v3lockpb::LockRequest lock;
	v3lockpb::LockResponse locked;
	v3lockpb::UnlockRequest unlock;
	v3lockpb::UnlockResponse unlocked;
	bool		locking;		/* otherwise unlocking */

	/* The call under way; its readers live in what the context owns. */
	std::optional<grpc::ClientContext> context;
	std::unique_ptr<grpc::ClientAsyncResponseReader<v3lockpb::LockResponse>> lock_call;
	std::unique_ptr<grpc::ClientAsyncResponseReader<v3lockpb::UnlockResponse>> unlock_call;
	grpc::Status status;

	void		Send() override;
	void		Release();
	void		NewCall();
};

Locker::Locker(int number_, grpc::CompletionQueue *queue_)
	: Client(number_, queue_), handover(options.job == JOB_HANDOVER), locks(Lock::NewStub(channel))
{
	lock.set_name(run + (handover ? "all" : std::to_string(number)));
	lock.set_lease(lease);
}

void
Locker::NewCall()
{
	lock_call.reset();
	unlock_call.reset();
	context.emplace();
}

void
Locker::Send()
{
	locking = true;
	NewCall();
	lock_call = locks->AsyncLock(&*context, lock, queue);
	lock_call->Finish(&locked, &status, this);
}

void
Locker::Release()
{
	locking = false;
	unlock.set_key(locked.key());
	NewCall();
	unlock_call = locks->AsyncUnlock(&*context, unlock, queue);
	unlock_call->Finish(&unlocked, &status, this);
}

bool
Locker::Answered(bool)
{
	Check(status, locking ? "lock" : "unlock");
	if (locking)
	{
		if (locked.key().compare(0, lock.name().size(), lock.name()) != 0)
			Fail("the lock's key is \"%s\"", locked.key().c_str());
		if (handover)
		{
			EnterSection(number);
			LeaveSection(number);
		}
		Release();
		return false;
	}

	/* To delete nothing would be no error to the server, and no change. */
	if (unlocked.header().revision() <= locked.header().revision())
		Fail("the unlock of \"%s\" deleted nothing", unlock.key().c_str());
	return true;
}

using Crew = std::vector<std::unique_ptr<Client>>;

/* One operation after the other of each client, until more(client) denies it another. */
template <typename More>
void
Drive(const Crew &crew, grpc::CompletionQueue *queue, More more)
{
	size_t		busy = crew.size();
	void	   *tag;
	bool		ok;

	for (const auto &client : crew)
		client->Begin();
	while (busy > 0 && queue->Next(&tag, &ok))
	{
		auto		client = static_cast<Client *>(tag);

		if (!client->Answered(ok))
			continue;
		if (more(*client))
			client->Begin();
		else
			busy--;
	}
}

/* A queue must be empty when it goes. */
void
Drain(grpc::CompletionQueue *queue)
{
	void	   *tag;
	bool		ok;

	queue->Shutdown();
	while (queue->Next(&tag, &ok))
		;
}

void
Work(int thread)
{
	grpc::CompletionQueue queue;
	Tally	   *tally = NewTally();
	Crew		crew;
	const int	warm_up = options.job == JOB_RENEW ? warm_up_renewals : warm_up_locks;

	for (int i = thread; i < options.clients; i += options.threads)
		if (options.job == JOB_RENEW)
			crew.push_back(std::make_unique<Renewer>(i, &queue));
		else
			crew.push_back(std::make_unique<Locker>(i, &queue));
	Drive(crew, &queue, [warm_up](Client &client) { return ++client.warm < warm_up; });
	PassGate();
	Drive(crew, &queue, [tally](Client &client) { return CountOperation(tally, client.began); });
	for (const auto &client : crew)
		client->End();
	Drain(&queue);
}

}								/* namespace */

int
main(int argc, char **argv)
{
	ReadOptions(argc, argv, JOB_RENEW | JOB_PAIR | JOB_HANDOVER);
	run = "bench/" + std::to_string(getpid()) + "-" + std::to_string(Now()) + "/";
	RunThreads(Work);
	PrintFigures();
	return 0;
}
