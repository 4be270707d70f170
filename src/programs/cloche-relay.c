#include <relay/protocol.h>

int main(void)
{
    return relay_serve();
}
